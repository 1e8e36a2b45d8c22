from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

from mediamesh.kit.settings import CommonSettings, ServerSettings, SettingsError


class Example(ServerSettings):
    """A server's settings."""

    section = "example"
    model: str = Field(default="tiny", description="A name.")
    queue_items: int = Field(default=8, ge=1, description="A bound.")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "mesh.toml"
    monkeypatch.setenv("MEDIAMESH_CONFIG", str(path))
    return path


def test_a_variable_wins_over_the_file_and_the_file_over_the_default(config, monkeypatch) -> None:
    config.write_text('log_level = "debug"\n[example]\nmodel = "of the file"\nqueue_items = 3\n')
    monkeypatch.setenv("MEDIAMESH_EXAMPLE_QUEUE_ITEMS", "5")
    settings = Example.load()
    assert (settings.model, settings.queue_items, settings.host) == ("of the file", 5, "127.0.0.1")
    assert CommonSettings.load().log_level == "debug"


def test_a_wrong_value_is_named_by_its_variable(monkeypatch) -> None:
    monkeypatch.setenv("MEDIAMESH_EXAMPLE_PORT", "70000")
    monkeypatch.setenv("MEDIAMESH_EXAMPLE_QUEUE_ITEMS", "none")
    with pytest.raises(SettingsError) as raised:
        Example.load()
    lines = str(raised.value).splitlines()
    assert any(line.startswith("MEDIAMESH_EXAMPLE_PORT: ") and "65535" in line for line in lines)
    assert any(line.startswith("MEDIAMESH_EXAMPLE_QUEUE_ITEMS: ") and "'none'" in line for line in lines)


def test_a_file_that_is_not_there_is_said(monkeypatch) -> None:
    monkeypatch.setenv("MEDIAMESH_CONFIG", "/nowhere.toml")
    with pytest.raises(SettingsError, match=r"MEDIAMESH_CONFIG.*nowhere"):
        Example.load()


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Example.load().port = 1


def test_every_setting_says_what_it_is_for() -> None:
    fields = {**Example.model_fields, **CommonSettings.model_fields}
    assert [name for name, field in fields.items() if not field.description] == []
