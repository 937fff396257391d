"""Parts of a `filter_chain_matcher`, in JSON's shape."""

from __future__ import annotations

from typing import Any

__all__ = ["INPUTS", "chain_named", "extension"]

#: Before the name of an input's type.
INPUTS = "envoy.extensions.matching.common_inputs.network.v3."


def extension(kind: str, **fields: Any) -> dict[str, Any]:
    """A TypedExtensionConfig of that type."""
    return {"name": "x", "typed_config": {"@type": f"type.googleapis.com/{kind}", **fields}}


def chain_named(name: str) -> dict[str, Any]:
    """What follows a match: the filter chain of that name."""
    return {"action": extension("google.protobuf.StringValue", value=name)}
