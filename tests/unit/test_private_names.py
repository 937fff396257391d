"""Names that libraries call their own and that the product leans on: each is there, and no other is used."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

_POOL = (
    "_http1 _http2 _keepalive_expiry _local_address _max_connections _max_keepalive_connections _retries"
    " _socket_options _ssl_context"
)
_CLIENT = (
    "_auth _build_request_auth _default_encoding _init_proxy_transport _merge_cookies _merge_headers _merge_queryparams"
    " _merge_url _send_handling_auth _send_handling_redirects _send_single_request _set_timeout _state _transport_for_url"
)
_MESSAGES = "_content _list _num_bytes_downloaded"
#: By the module that has them; where a name has a stand-in in our code, it is here all the same: nobody would notice.
NAMES = {
    "aiohttp.client": "_connector _middlewares _request _retry_connection _timeout",
    "aiohttp.client_proto": "_payload _tail",
    "aiohttp.client_reqrep": (
        "_body _cache _continue _headers _raw_cookie_headers _raw_headers _request_info _response_eof _ssl _upload_tracker"
    ),
    "aiohttp.connector": (
        "_conns _create_connection _factory _get_ssl_context _keepalive_timeout _loop _notify_release"
    ),
    "aiohttp.multipart": "_parts",
    "aiohttp.payload": "_value",
    "aiohttp.streams": "_eof_callbacks _exception _protocol",
    "email.message": "_headers",
    "grpc._channel": "_InactiveRpcError _RPCState _connectivity_state _registered_call_handle polling",
    "grpc._cython.cygrpc": (
        "_call_credentialses _channel_credentials _fallback_credentials _metadata_plugin _name"
    ),
    "grpc._server": "_rpc_event",
    "grpc.aio._call": "_cython_call _metadata_sent",
    "http.client": "_MAXHEADERS",
    "httpcore._async.connection_pool": _POOL,
    "httpcore._sync.connection_pool": _POOL,
    "httpcore2._async.connection_pool": _POOL,
    "httpcore2._sync.connection_pool": _POOL,
    "httpx._client": _CLIENT,
    "httpx._models": _MESSAGES,
    "httpx._urls": "_uri_reference",
    "httpx2._client": _CLIENT,
    "httpx2._models": _MESSAGES,
    "httpx2._urls": "_uri_reference",
    "opentelemetry.context": "_SUPPRESS_HTTP_INSTRUMENTATION_KEY _SUPPRESS_INSTRUMENTATION_KEY",
    "opentelemetry.instrumentation.instrumentor": "_instance",
    "opentelemetry.metrics._internal": "_METER_PROVIDER",
    "opentelemetry.trace": "_TRACER_PROVIDER",
    "os": "_data",
    "pybreaker": "_cluster_mode _create_new_state _namespace _redis",
    "pyqwest.testing._asgi": "_json",
    "re2": "_Regexp _re2 _regexp",
    "requests.models": "_cookies",
    "requests.structures": "_store",
    "ssl": "_sslobj",
    "subprocess": "_execute_child",
    "sys": "_getframe",
    "urllib3._collections": "_container",
    "urllib3.connection": "_get_default_user_agent _match_hostname",
    "urllib3.connectionpool": "_make_request",
    "urllib3.response": "_body _connection _fp _fp_bytes_read _original_response",
    "urllib3.util.timeout": "_connect _read",
}
#: Read with `getattr` where the object may be of another library's, and set by ours under a name that cannot be another's.
OURS = re.compile(r"_meshlib_|_mesh_runtime$")
#: Of Python's own import system; of named tuples, where it is no private one; of httpcore's pools when they have a socket in
#: place of an address. Of ours, set by object's own `__setattr__`.
OTHERS = {"_free", "_initializing", "_replace", "_uds"}


@pytest.mark.parametrize(("module", "names"), NAMES.items())
def test_they_are_there(module, names):
    there = importlib.import_module(module)
    if module == "sys":
        source = "\n".join(dir(there))
    elif module.endswith("cygrpc"):  # which has no source here
        source = "\n".join(
            name for each in vars(there).values() if isinstance(each, type) for name in dir(each)
        )
    else:
        source = inspect.getsource(there)
    assert [name for name in names.split() if not re.search(rf"(?<!\w){name}\b", source)] == []


def trees():
    for package in ("meshlib", "adapters"):
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path, ast.parse(path.read_text())


def test_no_other_is_used():
    """A private name that is not defined in the product itself is somebody else's."""
    own, used = set(), {}
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                own.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                own.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                own.add(node.attr)
            elif isinstance(node, ast.Attribute):
                used.setdefault(node.attr, f"{path.relative_to(ROOT)}:{node.lineno}")
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"getattr", "hasattr"}:
                word = node.args[1]
                if isinstance(word, ast.Constant):
                    used.setdefault(str(word.value), f"{path.relative_to(ROOT)}:{node.lineno}")
    listed = {name for names in NAMES.values() for name in names.split()} | OTHERS
    private = {name: where for name, where in used.items() if re.match(r"_[^_]", name)}
    assert {
        name: where for name, where in private.items() if name not in own | listed and not OURS.match(name)
    } == {}
