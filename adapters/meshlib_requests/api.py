"""``requests.api``: calls without a session of one's own."""

from __future__ import annotations

from typing import Any

from requests import Response

from meshlib_requests.sessions import Session

__all__ = ["delete", "get", "head", "options", "patch", "post", "put", "request"]


def request(method: str, url: str | bytes, **kwargs: Any) -> Response:
    """As ``requests.request``. Each call has a session of its own; connections are not kept."""
    with Session() as session:
        return session.request(method=method, url=url, **kwargs)


def get(url: str | bytes, params: Any = None, **kwargs: Any) -> Response:
    """As ``requests.get``."""
    return request("get", url, params=params, **kwargs)


def options(url: str | bytes, **kwargs: Any) -> Response:
    """As ``requests.options``."""
    return request("options", url, **kwargs)


def head(url: str | bytes, **kwargs: Any) -> Response:
    """As ``requests.head``."""
    kwargs.setdefault("allow_redirects", False)
    return request("head", url, **kwargs)


def post(url: str | bytes, data: Any = None, json: Any = None, **kwargs: Any) -> Response:
    """As ``requests.post``."""
    return request("post", url, data=data, json=json, **kwargs)


def put(url: str | bytes, data: Any = None, **kwargs: Any) -> Response:
    """As ``requests.put``."""
    return request("put", url, data=data, **kwargs)


def patch(url: str | bytes, data: Any = None, **kwargs: Any) -> Response:
    """As ``requests.patch``."""
    return request("patch", url, data=data, **kwargs)


def delete(url: str | bytes, **kwargs: Any) -> Response:
    """As ``requests.delete``."""
    return request("delete", url, **kwargs)
