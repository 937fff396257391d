"""The source of a mesh's control plane, by the transport that the configuration says, and the file that keeps its state."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from meshlib.sources.protocol import STREAMS
from meshlib.sources.xds import XdsSource
from meshlib.sources.xds_pair import xds_source

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.config import XdsConfig
    from meshlib.sources.base import Source
    from meshlib.sources.last_good import LastGood
    from meshlib.sources.merge import Merge
    from meshlib.sources.polling import Wire
    from meshlib.xds.bootstrap import Bootstrap, Server

__all__ = ["control_plane"]


def control_plane(merge: Merge, bootstrap: Bootstrap, xds: XdsConfig) -> list[Source]:
    """The file of the last good state, where there is one, before who fills it: it is stopped after that."""
    from meshlib.sources.lrs import LoadReports

    more: list[Source] = [LoadReports(merge, bootstrap)] if xds.protocol in STREAMS else []
    if xds.last_good is None:
        return [_source(merge, bootstrap, xds, None), *more]
    from meshlib.sources.last_good import LastGood

    kept = LastGood(merge, xds.last_good, bootstrap)
    return [kept, _source(merge, bootstrap, xds, kept), *more]


def _source(merge: Merge, bootstrap: Bootstrap, xds: XdsConfig, kept: LastGood | None) -> Source:
    """One stream for both views where no server can misread it: files answer a wildcard and names at once."""
    if xds.protocol == "files":
        from meshlib.sources.files import FileStream

        files = partial(FileStream, later=merge.worker.later, give_way=merge.worker.give_way)
        return XdsSource(merge, bootstrap, xds.view, files, protocol=xds.protocol, last_good=kept)
    if xds.protocol in ("rest", "fetch"):
        from meshlib.sources.polling import PolledStream

        polled = partial(
            PolledStream,
            wire=_wire(bootstrap, xds),
            later=merge.worker.later,
            random=merge.runtime.random,
            refresh=xds.refresh,
        )
        return xds_source(merge, bootstrap, xds.asked_view, polled, protocol=xds.protocol, last_good=kept)
    if not xds.separate:
        return xds_source(merge, bootstrap, xds.view, protocol=xds.protocol, last_good=kept)
    from meshlib.sources.separate import SeparateStreams

    streams = partial(
        SeparateStreams,
        api=xds.api,
        later=merge.worker.later,
        random=merge.runtime.random,
        ours=bootstrap.node.cluster,
    )
    protocol = "sotw" if xds.api == "v2" else xds.protocol
    return xds_source(merge, bootstrap, xds.asked_view, streams, protocol=protocol, last_good=kept)


def _wire(bootstrap: Bootstrap, xds: XdsConfig) -> Callable[[Server], Wire]:
    """How a control plane is polled; grpc is not loaded for REST."""
    if xds.protocol == "rest":
        from meshlib.sources.rest import RestWire

        return RestWire
    from meshlib.sources.fetch import FetchWire

    return partial(FetchWire, api=xds.api, ours=bootstrap.node.cluster)
