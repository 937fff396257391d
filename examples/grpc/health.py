"""grpc's health service, asked over a channel of the mesh: once, and by a watch that tells of a change."""

from __future__ import annotations

from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from guide import SERVICE, serving

import meshlib
import meshlib.grpc

Status = health_pb2.HealthCheckResponse.ServingStatus


def main() -> None:
    states = health.HealthServicer()
    states.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)

    def add(server: grpc.Server) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(states, server)

    with serving("one", add) as address:
        mesh = meshlib.Mesh({"services": {"guide": {"endpoints": [address]}}})
        with mesh, meshlib.grpc.channel("guide", mesh=mesh) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            asked = health_pb2.HealthCheckRequest(service=SERVICE)
            print("now:", Status.Name(stub.Check(asked, timeout=5).status))

            watch: Any = stub.Watch(asked, timeout=5)
            print("the watch says:", Status.Name(next(watch).status))
            states.set(SERVICE, health_pb2.HealthCheckResponse.NOT_SERVING)
            print("after a change:", Status.Name(next(watch).status))
            watch.cancel()

            try:
                stub.Check(health_pb2.HealthCheckRequest(service="examples.Nobody"), timeout=5)
            except grpc.RpcError as error:
                print("a service that it does not know:", error.code().name)


if __name__ == "__main__":
    main()
