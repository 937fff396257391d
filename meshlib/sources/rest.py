"""REST of a control plane that is polled (``protocol = "rest"``): DiscoveryRequests and DiscoveryResponses as JSON.

    POST /v3/discovery:<type> ──200──► an answer
                              ├─304──► not modified
                              └─else─► an error

The server's resources say where others come from as an Envoy needs it (``api_config_source`` by REST); whatever cluster they name
there is not looked up. Redirections are not followed, and proxies of the environment are not asked.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from meshlib.model.status import Ignored
from meshlib.sources.polling import Read
from meshlib.sources.rest_wire import Connection
from meshlib.xds import schema
from meshlib.xds.discovery import read_response, settle_sources

if TYPE_CHECKING:
    from meshlib.xds.schema import WireMessage

__all__ = ["RestWire"]

_KINDS = {
    schema.CLUSTER: "clusters",
    schema.ENDPOINT: "endpoints",
    schema.EXTENSION: "extension_configs",
    schema.FILTER_CHAIN: "filter_chains",
    schema.LISTENER: "listeners",
    schema.ROUTE: "routes",
    schema.SECRET: "secrets",
}
assert _KINDS.keys() == schema.SHORT_NAMES.keys()
_REST = 1  # envoy.config.core.v3.ApiConfigSource.ApiType


class RestWire(Connection):
    """See the header, and `meshlib.sources.polling.Wire`."""

    def name(self, url: str) -> str:
        return f"/v3/discovery:{_KINDS[url]}"

    def write(self, request: WireMessage) -> bytes:
        """Protobuf leaves out what is empty; a server that is not made of protobuf (sovereign) insists on some of it."""
        written = schema.to_json(request)
        written["node"] = {"id": "", "cluster": "", **written.get("node", {})}
        if "error_detail" in written:
            written["error_detail"].setdefault("details", [])
        return json.dumps(written).encode()

    def ask(self, url: str, body: bytes) -> bytes | None:
        return self.post(self.name(url), body)

    def read(self, url: str, body: bytes) -> Read:
        """Raises ValueError (JsonError) for what is no DiscoveryResponse."""
        response, unknown = read_response(json.loads(body, parse_constant=_no_constant))
        response.type_url = response.type_url or url
        short = schema.SHORT_NAMES[url]
        told = [Ignored("", short, place, value) for place, value in unknown]
        settle_sources(response, _by_rest)
        return Read(response.SerializeToString(), tuple(told))


def _by_rest(short: str, name: str, source: WireMessage) -> bool:
    """A source that is asked as this one is."""
    del short, name
    which = source.WhichOneof("config_source_specifier")
    return bool(which == "api_config_source" and source.api_config_source.api_type == _REST)


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no number of JSON")
