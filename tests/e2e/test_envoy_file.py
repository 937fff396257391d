"""A file that somebody wrote for an Envoy, as the services of a mesh: from its text to the answer of a call."""

from __future__ import annotations

import pytest

import meshlib
from meshlib.errors import ConfigError
from meshlib.testing import Upstream

TEXT = """
!ignore shared:
  filters: &router
  - name: envoy.filters.http.router
    typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
admin: {address: {socketAddress: {address: 127.0.0.1, portValue: "0"}}}
staticResources:
  listeners:
  - address: &here {socket_address: {address: 127.0.0.1, port_value: "18001"}}
    filterChains:
    - filters:
      - name: http
        typed_config:
          "@type": &manager type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: one
          http_filters: *router
          route_config:
            virtual_hosts:
              name: all
              domains: "*"
              routes:
              - match: {prefix: /, cookies: [{name: tier, string_match: {exact: gold}}]}
                direct_response: {status: "207", body: {inline_bytes: Z29sZA}}
              - match: {prefix: /}
                route: {cluster: one, timeout: {seconds: 5}}
  - address: {socket_address: {address: 127.0.0.1, port_value: 0x4652}}
    filter_chains:
      filters:
        name: http
        typed_config:
          "@type": *manager
          stat_prefix: two
          http_filters: *router
          route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 202}}]}]}
  clusters:
  - name: one
    type: static
    lb_policy: least_request
    connect_timeout: {seconds: 1}
    load_assignment:
      cluster_name: one
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: PORT}}}}]}]
"""


@pytest.mark.parametrize("named", ["as the configuration", "as its services_file"])
def test_calls_go_as_it_says(tmp_path, named):
    with Upstream("one") as upstream:
        path = tmp_path / "envoy.yaml"
        path.write_text(TEXT.replace("PORT", upstream.address.rpartition(":")[2]))
        mesh = meshlib.Mesh(str(path) if named == "as the configuration" else {"services_file": str(path)})
        with mesh, meshlib.Client(mesh=mesh) as client:
            assert client.get("http://127.0.0.1:18001/a").json()["name"] == "one"
            gold = client.get("http://127.0.0.1:18001/a", headers={"cookie": "x=1; tier=gold"})
            assert (gold.status_code, gold.text) == (207, "gold")
            assert client.get("http://127.0.0.1:18002/").status_code == 202
            assert client.get("http://127.0.0.1:18001/").status_code == 200
        assert upstream.requests_total == 2


def test_what_is_wrong_has_its_line(tmp_path):
    path = tmp_path / "envoy.yaml"
    path.write_text(TEXT.replace("PORT", "1").replace("lb_policy: least_request", "lb_policy: least-request"))
    line = path.read_text().split("\n").index("    lb_policy: least-request") + 1
    with pytest.raises(ConfigError) as caught:
        meshlib.Mesh({"services_file": str(path)}).explain("GET", "http://a/")
    (problem,) = caught.value.problems
    assert problem.startswith(
        f"{path}:{line}:5: staticResources.clusters[0].lb_policy: must be one of ROUND_ROBIN"
    )
