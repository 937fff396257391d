"""grpc's reflection over a channel of the mesh: what a server offers, learned from itself."""

from __future__ import annotations

import grpc
from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from guide import SERVICE, serving

import meshlib
import meshlib.grpc


def add(server: grpc.Server) -> None:
    reflection.enable_server_reflection((SERVICE, reflection.SERVICE_NAME), server)


def main() -> None:
    with serving("one", add) as one, serving("two", add) as two:
        mesh = meshlib.Mesh({"services": {"guide": {"endpoints": [one, two]}}})
        with mesh, meshlib.grpc.channel("guide", mesh=mesh) as channel:
            learned = ProtoReflectionDescriptorDatabase(channel)
            print("services:", sorted(learned.get_services()))
            service = descriptor_pool.DescriptorPool(learned).FindServiceByName(SERVICE)
            for method in service.methods:
                print(f"  {method.name} takes {method.input_type.name}, gives {method.output_type.name}")


if __name__ == "__main__":
    main()
