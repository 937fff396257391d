"""What type checkers must refuse: each line that ends with ``# wrong``, and no other. Nothing runs it."""

from __future__ import annotations

import meshlib
import meshlib_aiohttp
import meshlib_requests

mesh = meshlib.Mesh()

meshlib.Mesh({"service": 3})  # wrong
meshlib.Mesh({"services": {"reviews": {"endpoint": ["127.0.0.1:80"]}}})  # wrong
meshlib.Mesh({"services": {"reviews": {"timeout": "2s"}}})  # wrong
meshlib.Mesh({"services": {"reviews": {"balancer": "fastest"}}})  # wrong
meshlib.Mesh({"services": {"reviews": {"retry": {"on": ["5xy"]}}}})  # wrong
meshlib.Mesh({"services": {"reviews": {"endpoints": [{"weight": 3}]}}})  # wrong
meshlib.Mesh({"services": {"reviews": {"routes": [{"match": {"headers": {"x": 3}}}]}}})  # wrong
meshlib.Mesh({"xds": "127.0.0.1:18000"})  # wrong
meshlib.Mesh({"bypass": "metrics.internal"})  # wrong
meshlib.Mesh({"disabled": "yes"})  # wrong
meshlib.Mesh({"seed": 1.5})  # wrong
meshlib.Mesh(3)  # wrong

service: meshlib.ServiceDict = {"endpoints": ["127.0.0.1:80"], "tiemout": 2}  # wrong
config: meshlib.ConfigDict = {"services": {"reviews": {"limits": {"max_request": 1}}}}  # wrong

meshlib.Client(tiemout=3)  # wrong
meshlib.Client(timeout="3")  # wrong
meshlib.Client(mesh)  # wrong
meshlib.Client(mesh="mesh.toml")  # wrong
meshlib.AsyncClient(tiemout=3)  # wrong
meshlib.AsyncClient(transport=meshlib.Transport())  # wrong
meshlib.Transport(tiemout=3)  # wrong
meshlib.Transport(http2="yes")  # wrong
meshlib.AsyncTransport(mesh)  # wrong
meshlib.httpx2.Client(tiemout=3)  # wrong
meshlib.httpx2.AsyncClient(mesh)  # wrong
meshlib.httpx2.Transport(tiemout=3)  # wrong
meshlib_requests.Session(mesh)  # wrong
meshlib_requests.MeshAdapter(mesh)  # wrong

meshlib.CallOptions(timeout="2s")  # wrong
meshlib.CallOptions(retry={"atempts": 2})  # wrong
meshlib.CallOptions(retries=2)  # wrong
meshlib.deadline("1s")  # wrong
mesh.wait_ready(["a"])  # wrong
mesh.wait_ready("a", timeout="5")  # wrong
mesh.explain("GET", "http://a/", headers={"x": 1})  # wrong
mesh.explain(b"GET", "http://a/")  # wrong
meshlib_requests.call_options(timeout="2s")  # wrong

session = meshlib_aiohttp.ClientSession(tiemout=3)  # wrong
meshlib_aiohttp.ClientSession(mesh)  # wrong
session.get("http://a/", meshlib=3)  # wrong
session.get("http://a/", tiemout=3)  # wrong
