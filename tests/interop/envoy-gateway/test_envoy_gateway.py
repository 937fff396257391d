"""meshlib against Envoy Gateway itself: the listeners, routes and clusters that it makes for an Envoy at the edge, over mTLS."""

from __future__ import annotations

import json

import pytest

from tests.support.netns import Namespace, needed

_PROGRAM = """
import json, sys
from pathlib import Path
from tests.interop.support.gateway import scenario
print(json.dumps(scenario(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])))
"""


@pytest.mark.parametrize("protocol", ["delta", "sotw"])
def test_calls_go_on_over_changes_and_a_restart(protocol, binary, tmp_path):
    # CP-02, CP-05, CA-01: ads=true, and no api_listener.
    needed()
    with Namespace() as pod:
        told = json.loads(pod.python(_PROGRAM, str(binary), str(tmp_path), protocol).splitlines()[-1])
    assert told["failures"] == []
    assert told["other"] == "a"
    assert told["rejected"] == []
    assert (told["resources"]["route"], told["resources"]["cluster"]) == (1, 1)
