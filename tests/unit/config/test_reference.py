import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location(
        "config_reference", ROOT / "scripts" / "config_reference.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_code_says(script):
    assert script.main(["--check"]) == 0


def test_a_page_that_is_not_fails_the_check(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "PAGE", tmp_path / "docs" / "configuration.md")
    assert script.main(["--check"]) == 1
    assert script.main([]) == 0
    assert script.main(["--check"]) == 0
    script.PAGE.write_text(script.PAGE.read_text().replace("timeout", "time"))
    assert script.main(["--check"]) == 1
    assert "config_reference.py" in capsys.readouterr().out


def test_every_key_and_every_variable_is_there(script):
    from meshlib.config.layers import VARIABLES
    from meshlib.config.section import keys_of

    page = script.render()
    classes = {cls for _, cls in script._tables(script.Config, "")} | {script.Config}
    for cls in classes:
        for key in keys_of(cls):
            assert key.rest or f"| `{key.name}` |" in page
            assert key.doc.endswith(".")
    for name in (*VARIABLES, "MESHLIB_CONFIG", "OTEL_SERVICE_NAME"):
        assert f"`{name}`" in page
