"""meshlib's matching and rewriting against a real Envoy: random route tables, random requests, no difference.

Checklist VH, RM, HM, RA and RW, measured and not read.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.oracle.batch import Batch, Tally, resolution_of
from tests.e2e.oracle.compare import expectations, normal, tags, words
from tests.e2e.oracle.exchange import Client
from tests.e2e.oracle.requests import make_requests
from tests.e2e.oracle.seeds import BATCH, REQUESTS, batches

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(170)]

#: Each must have had a part in an outcome, in the first hundred tables.
EVERY_KIND = """
    path prefix|path prefix any case|path path|path path any case|path path_separated_prefix|path safe_regex
    path path_separated_prefix any case|no route
    header exact|header exact any case|header prefix|header suffix|header contains|header regex|header range
    header present True|header present False|header present True inverted|header exact inverted|header range inverted
    header missing as empty|header :method|header :path|header :authority|header :scheme|header host
    query exact|query prefix|query suffix|query contains|query regex|query present True|query present False
    fraction 250000|fraction 500000|fraction 1000000|grpc|cookie exact|cookie exact inverted|cookie regex
    request append_if_exists_or_add|request add_if_absent|request overwrite_if_exists_or_add|request overwrite_if_exists
    response append_if_exists_or_add|response add_if_absent|response overwrite_if_exists_or_add
    response overwrite_if_exists|most specific wins
    request add by config|request add by host|request add by route|request add by share
    response add by config|response add by host|response add by route|response add by share
    request remove by config|request remove by host|request remove by route|request remove by share
    cluster|weighted|cluster header|cluster, not there|cluster header, not there|share's host
    prefix rewrite|regex rewrite
    host_rewrite_literal|host_rewrite_header|host_rewrite_path_regex|auto_host_rewrite
    host_rewrite_literal, host appended|auto_host_rewrite, host appended
    redirect 301|redirect 302|redirect 303|redirect 307|redirect 308|redirect https|redirect scheme|redirect host
    redirect port|redirect path|redirect prefix_rewrite|redirect regex_rewrite|redirect strip_query
    direct response 200|direct response 201|direct response 308|direct response 404|direct response 503
    escaped slash 400|escaped slash 307|listener's path|listener's authority|listener's scheme
    listener's x-forwarded-proto|listener's x-forwarded-port|listener's user-agent
    listener's x-envoy-downstream-service-cluster|listener's x-envoy-downstream-service-node
    reply's status|reply's body as text|reply's body as json|reply's server|reply's x-mapped|reply's content-type
    attempts told|path parameters ignored|underscore 400|underscore dropped
"""


@pytest.mark.parametrize("seeds", batches(), ids=lambda seeds: f"{seeds.start}-{seeds.stop - 1}")
def test_envoy_and_core_do_the_same(seeds, tmp_path):
    tally = Tally()
    with Batch(seeds, tmp_path) as batch:
        for seed in seeds:
            _compare(batch, seed, tally)
    assert not tally.differences, tally.told()
    assert tally.compared == len(seeds) * REQUESTS
    if seeds == range(BATCH):
        missing = [kind for kind in _kinds() if not tally.hits[kind]]
        assert not missing, f"no exchange had a part of {missing}; there were {sorted(tally.hits)}"


def _compare(batch: Batch, seed: int, tally: Tally) -> None:
    resolution = resolution_of(seed, batch.tables[seed], batch.ports[seed])
    upstreams = batch.upstreams.addresses
    with Client(batch.ports[seed]) as client:
        for request in make_requests(batch.tables[seed], seed, REQUESTS):
            batch.upstreams.mark()
            got = client.send(request, batch.upstreams.latest)
            wanted = normal(got)
            expected = expectations(resolution, request, upstreams)
            same = next((one for one in expected if normal(one.exchange) == wanted), None)
            tally.compared += 1
            if same is None:
                tally.differences.append(f"table {seed}: {words(request, expected, got)}")
            else:
                tally.hits.update(set(tags(same)))


def _kinds() -> Iterator[str]:
    for line in EVERY_KIND.split("\n"):
        yield from (kind for kind in line.strip().split("|") if kind)
