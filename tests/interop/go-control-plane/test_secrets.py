"""Secrets of a snapshot: asked for by name, refused by name, and given up with the cluster that names them."""

from __future__ import annotations

import pytest

from meshlib.testing import build
from tests.interop.support.calling import PATIENCE
from tests.interop.support.meshes import NODE, config, reviews, xds
from tests.interop.support.snapshots import snapshot
from tests.support.watch import Watch

TLS = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
PEM, KEY = (
    f"-----BEGIN {label}-----\nMAA=\n-----END {label}-----\n" for label in ("CERTIFICATE", "PRIVATE KEY")
)


def body(version, upstream, *names, secrets=()):
    """A snapshot whose one cluster names these secrets: a certificate, and a CA."""
    made = snapshot("sidecar", NODE, version, reviews({"v1": 1}, v1=[upstream]))
    if names:
        configs = [{"name": name, "sds_config": {"ads": {}, "resource_api_version": "V3"}} for name in names]
        common = {"tls_certificate_sds_secret_configs": configs[:1]}
        if configs[1:]:
            common["validation_context_sds_secret_config"] = configs[1]
        context = build.any_of(TLS, {"common_tls_context": common})
        made["clusters"][0]["transport_socket"] = {"name": "tls", "typed_config": context}
    return made | {"secrets": [build.without_type(each) for each in secrets]}


def pair(name, key=KEY):
    return build.secret(name, certificate=PEM, key=key)


def roots(name, pem=PEM):
    return build.secret(name, ca=pem)


@pytest.mark.parametrize("protocol", ["delta", "sotw"])
@pytest.mark.parametrize("streams", ["aggregated", "separate"])
@pytest.mark.parametrize("options", [(), ("-ads",)], ids=["ads=false", "ads=true"])
def test_as_they_come_and_go(launch, options, protocol, streams, make_mesh, upstream):
    """SD-01, SD-03."""
    plane, v1 = launch(*options), upstream("v1")
    plane.protocol = protocol
    plane.put(body("1", v1, "a", "b", secrets=[pair("a"), roots("b")]))
    mesh = make_mesh(config(plane, "sidecar", streams=streams))
    watch = Watch(mesh)

    def told():
        found = xds(mesh)
        return (
            found.resources.get("secret", 0),
            found.versions.get("secret"),
            [each.resource for each in found.rejected],
        )

    watch.until(lambda: told() == (2, "1", []), PATIENCE)
    plane.put(body("2", v1, "a", "b", secrets=[pair("a", KEY * 2), roots("b", "none")]))
    watch.until(lambda: told() == (2, "1", ["b"]), PATIENCE)  # the old one stays
    plane.put(body("3", v1, "a", "b", secrets=[pair("a"), roots("b", PEM * 2)]))
    watch.until(lambda: told() == (2, "3", []), PATIENCE)
    plane.put(body("4", v1, "a", secrets=[pair("a")]))
    watch.until(lambda: told()[::2] == (1, []), PATIENCE)
    plane.put(body("5", v1))
    watch.until(lambda: told()[::2] == (0, []), PATIENCE)
