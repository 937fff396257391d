"""Random connection managers from a seed, in Envoy's JSON: what stands before a table, and what becomes of replies."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from meshlib.testing import build
from tests.e2e.oracle.tables import ACTIONS, Json, Maker

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BODY_FORMATS", "make_filters", "make_manager"]

SLASHES = (
    "IMPLEMENTATION_SPECIFIC_DEFAULT",
    "KEEP_UNCHANGED",
    "REJECT_REQUEST",
    "UNESCAPE_AND_REDIRECT",
    "UNESCAPE_AND_FORWARD",
)
UNDERSCORES = ("ALLOW", "REJECT_REQUEST", "DROP_HEADER")
#: A body may be anything but what an upstream writes.
BODY_FORMATS: tuple[Json, ...] = (
    {"text_format": "<%LOCAL_REPLY_BODY%>"},
    {"text_format": "%RESPONSE_CODE% %RESPONSE_FLAGS% %REQ(:path)% %REQ(x-user)% %LOCAL_REPLY_BODY%\n"},
    {
        "text_format": "%REQ(x-missing)%|%ROUTE_NAME%|%UPSTREAM_CLUSTER%|%RESP(x-added)%",
        "omit_empty_values": True,
    },
    {
        "text_format": "%RESP(:status)% %PROTOCOL% %QUERY_PARAM(q)% %%",
        "content_type": "text/html; charset=UTF-8",
    },
    {"text_format": ""},
    {"text_format_source": {"inline_string": "[%LOCAL_REPLY_BODY%] %REQ(x-missing):3%"}},
    {"json_format": {"status": "%RESPONSE_CODE%", "body": "%LOCAL_REPLY_BODY%", "user": "%REQ(x-user)%"}},
    {
        "json_format": {
            "z": "%REQ(x-missing)%",
            "a": {"path": "%REQ(:path)%", "deep": {"missing": "%REQ(x-missing)%"}},
            "list": ["%PROTOCOL%", "%REQ(x-missing)%", 1.5, 7, True, None, "x%REQ(x-missing)%"],
            "B": 'quoted "\\/<caf\u00e9',
        },
        "content_type": "application/problem+json",
    },
    {
        "json_format": {
            "only": "%REQ(x-missing)%",
            "in": {"it": "%REQ(x-missing)%"},
            "f": "%RESPONSE_FLAGS%",
        },
        "omit_empty_values": True,
        "json_format_options": {"sort_properties": True},
    },
)
_STATUSES = (200, 301, 308, 403, 404, 500, 503)
_REPLY_FORMATS = (
    "plain",
    " padded ",
    "%RESPONSE_CODE%",
    "%RESP(:status)%",
    "%REQ(:path)%",
    "%RESP(x-added)%",
)


class _ManagerMaker(Maker):
    def manager(self) -> Json:
        made: Json = {name: True for name in ("merge_slashes", "normalize_path") if self.chance(0.15)}
        port = self.rng.random()
        if port < 0.3:
            made["strip_any_host_port" if port < 0.15 else "strip_matching_host_port"] = True
        if self.chance(0.15):
            made["strip_trailing_host_dot"] = True
        if self.chance(0.35):
            made["path_with_escaped_slashes_action"] = self.rng.choice(SLASHES)
        if self.chance(0.15):
            made["scheme_header_transformation"] = {"scheme_to_overwrite": self.rng.choice(("http", "https"))}
        if self.chance(0.15):
            made["add_user_agent"] = True
        if self.chance(0.15):
            made["append_x_forwarded_port"] = True
        if self.chance(0.15):
            made["generate_request_id"] = True
        if self.chance(0.3):
            made["server_name"] = self.rng.choice(("edge", " edge of it "))
            made["server_header_transformation"] = self.rng.choice(
                ("OVERWRITE", "APPEND_IF_ABSENT", "PASS_THROUGH")
            )
        if self.chance(0.35):
            made["local_reply_config"] = self.local_replies()
        common: Json = {"max_stream_duration": "60s"} if self.chance(0.1) else {}
        if self.chance(0.3):
            common["headers_with_underscores_action"] = self.rng.choice(UNDERSCORES)
        if common:
            made["common_http_protocol_options"] = common
        return made

    def local_replies(self) -> Json:
        made: Json = {"mappers": [self.mapper() for _ in range(self.rng.randint(0, 4))]}
        if self.chance(0.6):
            made["body_format"] = self.rng.choice(BODY_FORMATS)
        return made

    def mapper(self) -> Json:
        made: Json = {"filter": self.filter()}
        if self.chance(0.5):
            made["status_code"] = self.rng.choice((200, 290, 404, 503, 599))
        if self.chance(0.4):
            made["body"] = self.rng.choice(
                ({"inline_string": "mapped"}, {"inline_bytes": "/wD+"}, {"inline_string": ""})
            )
        if self.chance(0.3):
            made["body_format_override"] = self.rng.choice(BODY_FORMATS)
        if self.chance(0.6):
            name = self.rng.choice(("x-added", "x-mapped", "content-type", "location"))
            text = self.rng.choice(_REPLY_FORMATS)
            made["headers_to_add"] = [build.header(name, text, action=self.rng.choice(ACTIONS))]
        return made

    def filter(self, depth: int = 0) -> Json:
        kinds = [
            *("status", "status", "header", "flags", "flags", "health", "runtime"),
            *("grpc", "metadata", "type", "traceable"),
        ]
        kind = self.rng.choice([*kinds, "and", "or"] if depth < 2 else kinds)
        if kind == "status":
            value = {"default_value": self.rng.choice(_STATUSES), "runtime_key": "nobody.sets.it"}
            comparison = {"op": self.rng.choice(("EQ", "GE", "LE", "NE")), "value": value}
            return {"status_code_filter": {"comparison": comparison}}
        if kind == "header":
            return {"header_filter": {"header": self.header_match()}}
        if kind == "flags":
            return {"response_flag_filter": {"flags": self.some(["NR", "NC", "UH"], 2)}}
        if kind == "grpc":
            statuses = self.some(
                ["UNKNOWN", "UNIMPLEMENTED", "UNAVAILABLE", "PERMISSION_DENIED", "INTERNAL"], 3
            )
            return {"grpc_status_filter": {"statuses": statuses, "exclude": self.chance(0.3)}}
        if kind == "metadata":
            made: Json = {"matcher": self.metadata_match()}
            if self.chance(0.8):
                made["match_if_key_not_found"] = self.chance(0.5)
            return {"metadata_filter": made}
        if kind == "type":
            types = self.some(["NotSet", "DownstreamEnd"], 2)
            return {"log_type_filter": {"types": types, "exclude": self.chance(0.6)}}
        if kind == "traceable":
            return {"traceable_filter": {}}
        if kind == "health":
            return {"not_health_check_filter": {}}
        if kind == "runtime":
            share = {"numerator": self.rng.choice((0, 100))}
            return {"runtime_filter": {"runtime_key": "nobody.sets.it", "percent_sampled": share}}
        inner: Sequence[Json] = [self.filter(depth + 1) for _ in range(2)]
        return {f"{kind}_filter": {"filters": inner}}


def make_manager(seed: int) -> Json:
    """What the connection manager before the table does to a head, and to replies of its own."""
    return _ManagerMaker(random.Random(f"manager/{seed}")).manager()


def make_filters(seed: int) -> list[Json]:
    """Filters that change nothing: one that may be unknown, and one that is off."""
    maker = Maker(random.Random(f"filters/{seed}"))
    cors = build.any_of("envoy.extensions.filters.http.cors.v3.Cors")
    made: list[Json] = []
    if maker.chance(0.2):
        made.append({"name": "optional", "is_optional": True, "typed_config": cors})
    if maker.chance(0.2):
        made.append({"name": "off", "disabled": True, "typed_config": cors})
    return made
