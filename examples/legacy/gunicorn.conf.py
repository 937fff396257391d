"""The shop's server. ``HOSTS`` stands for the names that a cluster's DNS would have: ``reviews=127.0.0.1``."""

import os
import socket
from typing import Any

workers = 2
threads = 4
worker_class = "gthread"
bind = os.environ.get("BIND", "127.0.0.1:8000")
loglevel = "warning"

_HOSTS = dict(pair.split("=") for pair in os.environ.get("HOSTS", "").split(",") if pair)
_resolve = socket.getaddrinfo


def _with_hosts(host: Any, *arguments: Any, **words: Any) -> Any:
    name = host.decode() if isinstance(host, bytes) else host
    return _resolve(_HOSTS.get(name, name), *arguments, **words)


socket.getaddrinfo = _with_hosts  # type: ignore[assignment]
