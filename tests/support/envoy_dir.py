"""A directory of resources as an Envoy reads it, in the shapes and by the swaps that a test wants."""

from __future__ import annotations

import json

import yaml

from meshlib.testing import build
from meshlib.xds import schema
from meshlib.xds.discovery import RESPONSE

__all__ = ["EnvoyDir", "by_path", "replaced"]


def by_path(path, **more):
    """A ConfigSource that is a file."""
    return {"path_config_source": {"path": str(path), **more}, "resource_api_version": "V3"}


def replaced(path, data):
    """Writes beside it, and moves into its place."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(data if isinstance(data, bytes) else data.encode())
    return fresh.replace(path)


class EnvoyDir:
    """Files of one directory; `form` is their suffix. Each `put` moves a whole file into its place."""

    def __init__(self, folder, form="yaml"):
        self.folder, self.form = folder, form

    def path(self, name):
        return self.folder / f"{name}.{self.form}"

    def put(self, name, *resources, **fields):
        return replaced(self.path(name), self.text({**fields, "resources": list(resources)}))

    def text(self, response):
        if self.form == "pb":
            return schema.from_json(RESPONSE, response).SerializeToString()
        return json.dumps(response) if self.form == "json" else yaml.safe_dump(response)

    def routes(self, *resources, name="rds"):
        return self.put(name, *resources)

    def api(self, name, routes, file="rds", **source):
        """A target whose routes are in a file."""
        rds = {"route_config_name": routes, "config_source": by_path(self.path(file), **source)}
        manager = build.any_of(
            build.HTTP_CONNECTION_MANAGER,
            {"stat_prefix": name, "rds": rds, "http_filters": [dict(build.ROUTER)]},
        )
        return build.any_of(
            "envoy.config.listener.v3.Listener", {"name": name, "api_listener": {"api_listener": manager}}
        )

    def eds(self, name, file="eds"):
        """A cluster whose endpoints are in a file."""
        return build.cluster(name, eds_cluster_config={"eds_config": by_path(self.path(file))})

    def fill(self, *addresses, name="reviews", cluster="c1"):
        """All that a call to `name` needs, in four files."""
        host = build.virtual_host(name, build.route("/", cluster=cluster), domains=["*"])
        self.put("eds", build.endpoints(cluster, *addresses))
        self.put("rds", build.route_config("r", host))
        self.put("cds", self.eds(cluster))
        self.put("lds", self.api(name, "r"))
