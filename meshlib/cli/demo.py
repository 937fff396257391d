"""`meshlib demo`: a control plane, three versions of a service and a client, live. `--once`: the same as lines, checked.

`python -m meshlib.cli.demo [--once] [--json]` is the same.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from meshlib.cli.common import FINDING, FINE, Stop, console, emit, working
from meshlib.cli.demo_lines import Lines, Silent
from meshlib.cli.render import marked
from meshlib.extras import INSTALL

if TYPE_CHECKING:
    from meshlib.cli.demo_script import Script, Viewer
    from meshlib.cli.demo_stage import Stage

__all__ = ["run"]

#: How much longer an act is shown live than its claims need.
_LIVE_PACE = 2.0


def run(*, once: bool, as_json: bool = False) -> int:
    """The command: FINE, or FINDING where a claim did not hold. Without a terminal it is ``--once``. Raises Stop."""
    # Set before grpc is first imported: that a server which we kill says goodbye is no news here.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    logging.getLogger("meshlib").addHandler(logging.NullHandler())
    try:
        return _run(live=not (once or as_json) and console().is_terminal, as_json=as_json)
    except KeyboardInterrupt:
        if once or as_json:
            raise  # its claims were not all checked
        return FINE
    except ImportError as missing:
        remedy = INSTALL.format("cli")
        line = f"demo: it needs meshlib's test kit and grpcio ({missing}); they come with {remedy}"
        raise Stop(FINDING, [line]) from None
    except (OSError, RuntimeError) as problem:
        raise Stop(FINDING, [f"demo: it could not be set up on this machine: {problem}"]) from None


def _run(*, live: bool, as_json: bool) -> int:
    from meshlib.cli.demo_calls import Calls
    from meshlib.cli.demo_script import Script
    from meshlib.cli.demo_stage import Stage

    with ExitStack() as ending:
        with working("starting a control plane and three servers …"):
            stage = ending.enter_context(Stage())
        calls = ending.enter_context(Calls(stage))
        if live:
            from meshlib.cli.demo_screen import Screen

            with Screen(stage, calls, console()) as screen:
                script = Script(stage, calls, screen, _LIVE_PACE)
                script.play()
            Lines(stage, console()).all(script)
        else:
            viewer: Viewer = Silent() if as_json else Lines(stage, console())
            script = Script(stage, calls, viewer)
            script.play()
    return _verdict(script, stage, as_json=as_json)


def _verdict(script: Script, stage: Stage, *, as_json: bool) -> int:
    broken = [fact for fact in script.facts if not fact.holds]
    if as_json:
        servers = {name: server.address for name, server in stage.versions.items()}
        acts = [act.to_dict() for act in script.acts]
        emit(
            {
                "control_plane": stage.control_plane.address,
                "versions": servers,
                "acts": acts,
                "holds": not broken,
            }
        )
    else:
        count = f"{len(script.facts)} claims"
        screen = console()
        if broken:
            screen.print(marked("✗", "bold red", f"{len(broken)} of {count} did not hold"))
        else:
            screen.print(marked("✓", "bold green", f"{count}, and all held"))
    return FINDING if broken else FINE


def _main() -> int:
    from meshlib.cli.common import complain

    parser = argparse.ArgumentParser(prog="python -m meshlib.cli.demo", description=__doc__)
    parser.add_argument(
        "--once", action="store_true", help="without a terminal: lines, and each claim checked"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args()
    try:
        return run(once=asked.once, as_json=asked.json)
    except Stop as stop:
        complain(stop.lines)
        return stop.code


if __name__ == "__main__":
    sys.exit(_main())
