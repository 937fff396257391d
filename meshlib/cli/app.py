"""The commands and their options."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from meshlib import __version__
from meshlib.cli.common import FINDING, FINE, USAGE, Stop, complain

__all__ = ["app", "run"]

app = typer.Typer(
    name="meshlib",
    help="A service mesh inside a Python process: check its configuration, ask it why, watch it work.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        readable=True,
        help="The configuration; without it the environment says.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Wait = Annotated[
    float,
    typer.Option("--wait", metavar="SECONDS", min=0.0, max=3600.0, help="How long sources are waited for."),
]
Names = Annotated[
    list[str] | None,
    typer.Option(
        "--name", "-n", metavar="HOST[:PORT]", help="Ask the control plane for this host; repeatable."
    ),
]

Pid = Annotated[
    int | None,
    typer.Argument(
        min=1,
        show_default=False,
        help="A running process that allows it, or the master of some; see meshlib ps.",
    ),
]
Which = Annotated[int, typer.Option("--mesh", metavar="N", min=1, help="Which mesh of the process, from 1.")]


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"meshlib {__version__}\n")
        raise typer.Exit


@app.callback()
def _common(
    _show: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A callback makes every function below a command, however many there are."""


@app.command()
def demo(
    once: Annotated[
        bool, typer.Option("--once", help="Run the script once, print lines, check each fact.")
    ] = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """A control plane, three versions of a service and a client, all local, shown live."""
    if config is not None:
        _end(lambda: _refuse("demo: --config: the demo brings its own configuration"))
    from importlib import import_module

    module = import_module("meshlib.cli.demo")
    _end(lambda: module.run(once=once, as_json=as_json))


@app.command()
def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")] = Path("mesh.toml"),
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Write a configuration file to begin with; one that is there is left as it is."""
    if config is not None:
        _end(
            lambda: _refuse(
                "init: --config: say the file that is to be written, as in meshlib init mesh.toml"
            )
        )
    from importlib import import_module

    module = import_module("meshlib.cli.init")
    _end(lambda: module.init(file, as_json=as_json))


@app.command()
def check(
    file: Annotated[
        Path | None,
        typer.Argument(
            exists=True, dir_okay=False, readable=True, show_default=False, help="The file to check."
        ),
    ] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Read a configuration, or one of Envoy's: every problem with its place, every setting that is not honoured.

    Without FILE the environment says: the file of MESHLIB_CONFIG, with the variables over it.
    """
    from meshlib.cli.check import check as command

    if file is not None and config is not None:
        _end(lambda: _refuse("check: FILE and --config mean the same: give one of them"))
    else:
        _end(lambda: command(file or config, as_json=as_json))


@app.command()
def route(
    method: Annotated[str, typer.Argument(help="GET, POST, …")],
    url: Annotated[str, typer.Argument(help="http://host[:port]/path")],
    header: Annotated[
        list[str] | None,
        typer.Option("--header", "-H", metavar="'NAME: VALUE'", help="A header; repeatable."),
    ] = None,
    config: Config = None,
    as_json: Json = False,
    wait: Wait = 5.0,
) -> None:
    """What a call would do, and why. Nothing is sent to the service."""
    from meshlib.cli.route import headers_of
    from meshlib.cli.route import route as command

    _end(lambda: command(method, url, headers_of(header or ()), config=config, seconds=wait, as_json=as_json))


@app.command()
def ps(config: Config = None, as_json: Json = False) -> None:
    """This user's processes that can be asked: pid, command, master or worker, service, state."""
    from meshlib.cli.processes import ps as command

    _end(lambda: command(config=config, as_json=as_json))


@app.command()
def watch(
    pid: Pid = None,
    config: Config = None,
    as_json: Json = False,
    name: Names = None,
    mesh: Which = 1,
) -> None:
    """The status, live: of a running process, of a master's workers, or without PID of a mesh of its own that makes no calls.

    Ends on Ctrl-C. With --json, a line a change.
    """
    from meshlib.cli.watch import watch as command

    _end(lambda: command(pid, name or (), config=config, which=mesh, as_json=as_json))


@app.command()
def dump(
    pid: Pid = None,
    config: Config = None,
    as_json: Json = False,
    wait: Wait = 2.0,
    name: Names = None,
    snapshot: Annotated[
        bool, typer.Option("--snapshot", help="The configuration in force instead, as JSON.")
    ] = False,
    mesh: Which = 1,
) -> None:
    """The status once: of a running process, of a master's workers, or without PID of a mesh made here, which makes no calls."""
    from meshlib.cli.dump import dump as command

    _end(
        lambda: command(
            pid, name or (), config=config, seconds=wait, snapshot=snapshot, which=mesh, as_json=as_json
        )
    )


@app.command()
def doctor(pid: Pid = None, config: Config = None, as_json: Json = False, name: Names = None) -> None:
    """What is wrong and what to do about it: of a running process, of a master's workers, or without PID of this configuration.

    Takes some ten seconds at most. Exit code 0: nothing, or only notes.
    """
    from meshlib.cli.doctor import doctor as command

    _end(lambda: command(pid, name or (), config=config, as_json=as_json))


@app.command("run", context_settings={"allow_interspersed_args": False})
def run_command(
    command: Annotated[list[str], typer.Argument(metavar="COMMAND [ARGS]...", show_default=False)],
    config: Config = None,
) -> None:
    """Run a command whose requests, urllib3, httpx, httpx2, aiohttp and gRPC calls go through the mesh, in its children too.

    Exit code, signals and standard streams are the command's.
    """
    from meshlib.cli.run import run as become

    _end(lambda: become(command, config=config))


@app.command()
def adoption(pid: Pid = None, config: Config = None, as_json: Json = False) -> None:
    """What services that have not joined would get in the mesh: of a process, of a master's workers, or without PID of all processes
    of this user with this configuration. Exit code 0: each of them can go on.
    """
    from meshlib.cli.adoption import adoption as command

    _end(lambda: command(pid, config=config, as_json=as_json))


def _refuse(line: str) -> int:
    raise Stop(USAGE, [line])


def _end(command: Callable[[], int]) -> None:
    """Run a command and leave with its exit code."""
    try:
        code = command()
    except Stop as stop:
        complain(stop.lines)
        code = stop.code
    raise typer.Exit(code)


def run(arguments: list[str]) -> int:
    """The whole program."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")  # a terminal that cannot show a character shows another
    try:
        app(arguments, prog_name="meshlib")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else FINE if end.code is None else FINDING
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read has seen enough. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINE
    return FINE
