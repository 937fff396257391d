"""Files that no module brings are found where they are checked out; the other tests here then try them beside the rest."""

from __future__ import annotations

import pytest

from tests.corpus import cases
from tests.corpus.modules import CHECKOUTS, checkout


@pytest.mark.parametrize("project", CHECKOUTS)
def test_there_are_sets(project):
    if checkout(project) is None:
        pytest.skip(
            f"MESHLIB_TEST_CHECKOUTS names no folder with {project} in it: "
            f"git clone --depth 1 https://{CHECKOUTS[project]} FOLDER/{project}"
        )
    found = list(getattr(cases, project)())
    assert any(one.listeners and one.clusters and one.endpoints for one in found)
    assert len({one.name for one in found}) == len(found)
