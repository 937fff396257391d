"""What becomes of every field that the schema has: the one table that decoders and documentation share.

A decoder reads the fields it honours. All that a resource carries besides is judged by :func:`meshlib.xds.decode.report.walk`
from this table, so a field cannot be dropped in silence: whatever the table does not name is reported.

    honoured   it does what its documentation says (a note tells where it does less)
    carried    decoded and kept, but nothing acts on it yet: reported
    reported   not honoured; `Mesh.status()` lists it under `ignored`
    rejected   a resource that sets it is refused
    void       means nothing in a client: statistics' names, an Envoy's own sockets, tracing of an Envoy

A message that means different things in two places has a variant (`HttpProtocolOptions#downstream`); the parent's field
names it.
"""

from __future__ import annotations

from collections.abc import Mapping

from meshlib.xds.decode.fields.cluster import CLUSTER
from meshlib.xds.decode.fields.core import CORE
from meshlib.xds.decode.fields.limits import LIMITS
from meshlib.xds.decode.fields.listener import LISTENER
from meshlib.xds.decode.fields.matcher import MATCHER
from meshlib.xds.decode.fields.protocol import PROTOCOL
from meshlib.xds.decode.fields.route import ROUTE
from meshlib.xds.decode.fields.rules import Kind, Rule, Rules
from meshlib.xds.decode.fields.upstream import UPSTREAM

__all__ = ["DEFAULT", "TABLE", "Kind", "Rule", "Rules", "rule"]

TABLE: Mapping[str, Rules] = {
    **CORE,
    **LISTENER,
    **MATCHER,
    **LIMITS,
    **ROUTE,
    **CLUSTER,
    **PROTOCOL,
    **UPSTREAM,
}

DEFAULT = Rule(Kind.REPORTED)


def rule(message: str, field: str) -> Rule:
    """What becomes of `field` of `message` (an upstream name, with `#variant` where it has one)."""
    rules = TABLE.get(message)
    return DEFAULT if rules is None else rules.get(field, DEFAULT)
