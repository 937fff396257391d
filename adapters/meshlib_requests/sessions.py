"""``requests.sessions``, with the mesh's ``Session``."""

from __future__ import annotations

import os
from http.cookiejar import CookieJar
from typing import TYPE_CHECKING, Any, Never

import requests
from requests import sessions as _sessions
from requests.cookies import RequestsCookieJar, cookiejar_from_dict, merge_cookies
from requests.sessions import merge_hooks, merge_setting
from requests.structures import CaseInsensitiveDict

from meshlib.mesh import only_by_name
from meshlib_requests.adapter import MeshAdapter
from meshlib_requests.reference import mesh_of, reference_to
from meshlib_requests.shortcuts.environment import netrc_auth, proxies_for
from meshlib_requests.shortcuts.prepare import Lines, prepare

if TYPE_CHECKING:
    from meshlib.mesh import Mesh

__all__ = ["Session", "session"]


class Session(requests.Session):
    """A ``requests.Session`` whose calls go through the mesh where it knows the host, and are requests' own elsewhere.

    What fails is requests' exception and meshlib's at once; ``meshlib.call_info(response)`` says what was done. It is pickled
    as requests' session is. ``requests.Session`` is not fully thread-safe (cookies), and neither is this.

    Args:
        mesh: Whose rules hold; without it ``meshlib.default()``.
    """

    #: Whether what requests does at each call, and need not, is left out (``meshlib_requests.shortcuts``).
    shortcuts = True

    def __init__(self, *positional: Never, mesh: Mesh | None = None) -> None:
        only_by_name(self, *positional)
        self._mesh = mesh
        self._lines = Lines()
        super().__init__(*positional)
        self.mount("https://", MeshAdapter(mesh=mesh))
        self.mount("http://", MeshAdapter(mesh=mesh))

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """As requests'; what neither session nor request says is not merged."""
        if not self.shortcuts:
            return super().prepare_request(request)
        auth = request.auth
        if self.trust_env and not auth and not self.auth:
            auth = netrc_auth(request.url)
        lines = None if request.headers else self._lines.of(self.headers)
        headers = lines
        if headers is None:
            headers = merge_setting(request.headers, self.headers, dict_class=CaseInsensitiveDict)
        return prepare(
            request,
            headers=headers,
            checked=lines is not None,
            params=merge_setting(request.params, self.params) if self.params else request.params,
            auth=auth if self.auth is None else merge_setting(auth, self.auth),
            cookies=self._cookies(request.cookies),
            hooks=merge_hooks(request.hooks, self.hooks),
        )

    def _cookies(self, own: Any) -> Any:
        # A jar is true when it has cookies; one of the application's own may say nothing of it.
        mine = self.cookies
        none = not len(own) if type(own) is RequestsCookieJar else not own and not isinstance(own, CookieJar)
        if none and type(mine) is RequestsCookieJar and not len(mine):
            return RequestsCookieJar()
        if not isinstance(own, CookieJar):
            own = cookiejar_from_dict(own or {})
        return merge_cookies(merge_cookies(RequestsCookieJar(), mine), own)

    def merge_environment_settings(
        self,
        url: Any,
        proxies: Any,
        stream: bool | None,
        verify: Any,
        cert: Any,
    ) -> dict[str, Any]:
        """As requests'; the environment is read again only when it changed."""
        if not self.shortcuts:
            return super().merge_environment_settings(url, proxies, stream, verify, cert)
        if self.trust_env:
            found = proxies_for(url, proxies.get("no_proxy") if proxies is not None else None)
            if proxies is not None:
                for name, value in found.items():
                    proxies.setdefault(name, value)
            if verify is True or verify is None:
                variables = os.environ
                verify = variables.get("REQUESTS_CA_BUNDLE") or variables.get("CURL_CA_BUNDLE") or verify
        return {
            "proxies": merge_setting(proxies, self.proxies) if proxies or self.proxies else {},
            "stream": self.stream if stream is None else stream,
            "verify": self.verify if verify is None else verify,
            "cert": self.cert if cert is None else cert,
        }

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_mesh": reference_to(self._mesh)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        others = dict(state)
        self._mesh = mesh_of(others.pop("_mesh", None))
        self._lines = Lines()
        super().__setstate__(others)  # type: ignore[no-untyped-call,unused-ignore]


def session() -> Session:
    """As ``requests.session``."""
    return Session()


def __getattr__(name: str) -> Any:
    return getattr(_sessions, name)
