"""The policies of a configuration file as values of the model."""

from __future__ import annotations

import pytest

from meshlib.config import Config
from meshlib.runtime.policies import outlier


@pytest.mark.parametrize(("percent", "expected"), [(None, True), (50, True), (0, False)])
def test_one_endpoint_of_a_service_may_always_be_ejected(percent: int | None, expected: bool) -> None:
    written = {} if percent is None else {"max_ejection_percent": percent}
    config = Config.from_mapping({"services": {"a": {"endpoints": ["a:1"], "outlier": written}}})
    section = config.services["a"].outlier
    assert section is not None
    assert outlier(section).always_eject_one is expected
