"""Notebooks: the cells of docs/tasks/jupyter.md run in a real kernel; so do an interrupt and a restart."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Jupyter's own, while it is imported
    import nbformat
    from jupyter_client import KernelManager
    from nbclient import NotebookClient

from meshlib.testing import ControlPlane, Upstream, build

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "tasks" / "jupyter.md"
THREADS = "import threading\nprint(sum(one.name.startswith('meshlib') for one in threading.enumerate()))"


class Notebook:
    """A kernel in ``place``, and cells that are run in it one after another."""

    def __init__(self, place: Path, **environment: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MESHLIB_")}
        path = os.pathsep.join([str(ROOT), str(ROOT / "adapters")])
        self._environment = {
            **kept,
            "PYTHONPATH": path,
            "IPYTHONDIR": str(place / "ipython"),
            "JUPYTER_RUNTIME_DIR": str(place / "runtime"),
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
            **environment,
        }
        self._place = place
        self.manager: Any = KernelManager(
            kernel_name="python3", transport="ipc", ip=str(place / "kernel"), shutdown_wait_time=10.0
        )
        self.client: Any = None

    def __enter__(self) -> Self:
        self.manager.start_kernel(cwd=str(self._place), env=self._environment)
        self._connect()
        return self

    def _connect(self) -> None:
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=40)

    def run(self, code: str) -> str:
        """What the cell said, printed or as its value; an AssertionError with the traceback where it raised."""
        said: list[str] = []

        def hear(message: Any) -> None:
            content = message["content"]
            if message["msg_type"] == "stream":
                said.append(content["text"])
            elif message["msg_type"] == "execute_result":
                said.append(content["data"]["text/plain"])

        reply = self.client.execute_interactive(code, timeout=40, output_hook=hear, allow_stdin=False)
        content = reply["content"]
        assert content["status"] == "ok", "\n".join(content.get("traceback", [content["status"]]))
        return "".join(said).strip()

    def begin(self, code: str) -> str:
        """Run it without waiting; the id to ``finish`` it by."""
        found: str = self.client.execute(code)
        return found

    def finish(self, asked: str) -> dict[str, Any]:
        """The reply."""
        while True:
            reply = self.client.get_shell_msg(timeout=30)
            if reply["parent_header"].get("msg_id") == asked:
                content: dict[str, Any] = reply["content"]
                return content

    def restart(self) -> None:
        self.client.stop_channels()
        self.manager.restart_kernel(now=False)
        self._connect()

    def __exit__(self, *exception: object) -> None:
        if self.client is not None:
            self.client.stop_channels()
        self.manager.shutdown_kernel(now=False)
        self.manager.cleanup_resources()
        self.manager.context.destroy(linger=0)


@pytest.fixture
def servers() -> Iterator[tuple[Upstream, Upstream]]:
    with Upstream("a") as one, Upstream("b") as other:
        yield one, other


@pytest.fixture
def notebook(tmp_path: Path) -> Iterator[Notebook]:
    with Notebook(tmp_path) as made:
        yield made


def cells(*servers: Upstream) -> list[str]:
    """The page's, with real addresses."""
    found = re.findall(r"^```i?python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return [
        cell.replace("127.0.0.1:8081", servers[0].address).replace("127.0.0.1:8082", servers[1].address)
        for cell in found
    ]


def mesh_of(*servers: Upstream) -> str:
    endpoints = [server.address for server in servers]
    return f"meshlib.Mesh({{'services': {{'reviews': {{'endpoints': {endpoints!r}}}}}}})"


def test_the_page_as_a_notebook(
    tmp_path: Path, servers: tuple[Upstream, Upstream], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = servers
    book = nbformat.v4.new_notebook()
    book.cells = [nbformat.v4.new_code_cell(cell) for cell in [*cells(one, other), THREADS]]
    for name, value in Notebook(tmp_path)._environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    NotebookClient(book, timeout=40, kernel_name="python3").execute()
    said = {
        cell.source.strip().splitlines()[-1]: "".join(map(_said, cell.outputs)).strip() for cell in book.cells
    }
    assert said['response.json()["name"]'] in {"'a'", "'b'"}
    endpoints = said["{meshlib.call_info(answer).endpoint for answer in answers}"]
    assert one.address in endpoints
    assert other.address in endpoints
    assert said['requests.get("http://reviews/").status_code'] == "200"
    assert "reviews" in said['print("\\n".join(meshlib.call_info(response).trace()))']
    assert said['mesh.explain("GET", "http://reviews/").to_dict()["cluster"]'] == "'reviews'"
    assert said['mesh.status().to_dict()["clusters"]["reviews"]["endpoints"]'].count("healthy") == 2
    assert said['client.get("http://reviews/").json()["name"]'] == "'b'"
    names = [_said(cell.outputs[0]) for cell in book.cells if cell.source.strip().endswith("shop.name()")]
    assert names == ["'a'", "'b'"]
    assert said['client.get("http://reviews/").status_code'] == "200"
    assert said[THREADS.splitlines()[-1]] == "1"  # the edited module's


def _said(output: Any) -> str:
    assert output["output_type"] in {"stream", "execute_result"}, output
    assert output.get("name") != "stderr", output
    return str(output["text"] if "text" in output else output["data"]["text/plain"])


def test_reloading_and_running_again_leave_no_thread_and_no_connection(
    notebook: Notebook, servers: tuple[Upstream, Upstream]
) -> None:
    one, other = servers
    module = notebook._place / "shop.py"
    text = f"import meshlib\nmesh = {mesh_of(one)}\nclient = meshlib.Client(mesh=mesh)\n"
    module.write_text(text)
    notebook.run("%load_ext autoreload\n%autoreload 2\nimport meshlib, shop")
    for number in range(5):
        module.write_text(text + f"# edition {number} {'x' * number}\n")
        notebook.run("shop.client.get('http://reviews/').status_code")
    again = f"mesh = {mesh_of(other)}\nclient = meshlib.Client(mesh=mesh)\nclient.get('http://reviews/');"
    for _ in range(5):
        notebook.run(again)
    notebook.run("import gc; gc.collect();")
    one.wait_for(lambda: one.connections_open <= 1)
    other.wait_for(lambda: other.connections_open <= 1)
    assert notebook.run(THREADS) == "1"  # a process has one worker, however many meshes


def test_an_interrupt_ends_the_call_and_nothing_stays_counted(
    notebook: Notebook, servers: tuple[Upstream, Upstream]
) -> None:
    one, _ = servers
    notebook.run(f"import meshlib\nmesh = {mesh_of(one)}\nclient = meshlib.Client(mesh=mesh, timeout=None)")
    one.hang(times=1)
    asked = notebook.begin("client.get('http://reviews/')")
    one.wait_for(lambda: one.held == 1)
    notebook.manager.interrupt_kernel()
    reply = notebook.finish(asked)
    assert (reply["status"], reply["ename"]) == ("error", "KeyboardInterrupt")
    one.wait_for(lambda: one.connections_open == 0)  # it may not be used again
    assert notebook.run("mesh.status().clusters['reviews'].active") == "0"
    assert notebook.run("client.get('http://reviews/').status_code") == "200"


def test_a_deadline_ends_calls_that_are_awaited(
    notebook: Notebook, servers: tuple[Upstream, Upstream]
) -> None:
    one, _ = servers
    notebook.run(
        f"import meshlib\nmesh = {mesh_of(one)}\ncalls = meshlib.AsyncClient(mesh=mesh, timeout=None)"
    )
    one.hang(times=1)
    cell = (
        "try:\n    with meshlib.deadline(2.0):\n        await calls.get('http://reviews/')\n"
        "except meshlib.DeadlineExceeded as error:\n    print(error.info.cluster)"
    )
    assert notebook.run(cell) == "reviews"
    assert notebook.run("mesh.status().clusters['reviews'].active") == "0"
    assert notebook.run("(await calls.get('http://reviews/')).status_code") == "200"


def test_a_restart_leaves_nothing_behind(notebook: Notebook, servers: tuple[Upstream, Upstream]) -> None:
    """With a control plane and an asynchronous client that nobody closed."""
    one, _ = servers
    route = build.route(cluster="reviews")
    hosts = build.virtual_host("reviews", route, domains=["reviews"])
    with ControlPlane(
        build.api_listener("reviews", "routes"),
        build.route_config("routes", hosts),
        build.cluster("reviews"),
        build.endpoints("reviews", build.endpoint(one.address)),
    ) as plane:
        cell = (
            f"import meshlib\nmesh = meshlib.Mesh({{'xds': {{'server': '{plane.address}', 'view': 'target'}}}})\n"
            "calls = meshlib.AsyncClient(mesh=mesh)\n"
            "print((await calls.get('http://reviews/')).json()['name'])"
        )
        assert notebook.run(cell) == "a"
        assert len(plane.streams) == 1
        notebook.restart()
        plane.wait_for_streams(0, timeout=10.0)
        one.wait_for(lambda: one.connections_open == 0)
        assert notebook.run(cell) == "a"
        plane.wait_for_streams(1, timeout=10.0)
