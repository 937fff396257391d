"""Tokens of service accounts, as Kubernetes signs them, and the keys that they are checked by."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Tokens"]

_ISSUER = "https://kubernetes.default.svc"


class Tokens:
    """``path`` has one that is good; ``jwks``: the public key, as a JSON Web Key Set."""

    def __init__(self, folder: Path) -> None:
        self._key = rsa.generate_private_key(65537, 2048)
        self.path = folder / "istio-token"
        self.jwks = folder / "jwks.json"
        numbers = self._key.public_key().public_numbers()
        known = {"kty": "RSA", "kid": "1", "alg": "RS256", "use": "sig"}
        known |= {"n": _number(numbers.n), "e": _number(numbers.e)}
        self.jwks.write_text(json.dumps({"keys": [known]}))
        self.write()

    def write(self, account: str = "app", **claims: Any) -> str:
        """Another token in the file: of this account of the namespace ``default``, with these claims in the place of the usual ones."""
        now = int(time.time())
        usual = {"iss": _ISSUER, "aud": ["istio-ca"], "iat": now, "exp": now + 3600}
        usual["sub"] = f"system:serviceaccount:default:{account}"
        parts = [_part({"alg": "RS256", "kid": "1"}), _part({**usual, **claims})]
        signed = self._key.sign(".".join(parts).encode(), padding.PKCS1v15(), hashes.SHA256())
        token = ".".join([*parts, _encoded(signed)])
        self.path.write_text(token)
        return token


def _part(content: Any) -> str:
    return _encoded(json.dumps(content).encode())


def _number(value: int) -> str:
    return _encoded(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def _encoded(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()
