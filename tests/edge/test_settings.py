from __future__ import annotations

import pytest

from mediamesh.edge.settings import Settings
from mediamesh.kit.settings import SettingsError


def test_a_wrong_setting_is_named(monkeypatch) -> None:
    monkeypatch.setenv("MEDIAMESH_EDGE_CORS_ORIGINS", "https://(")
    monkeypatch.setenv("MEDIAMESH_EDGE_MAX_SOCKETS", "0")
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert "MEDIAMESH_EDGE_CORS_ORIGINS" in str(caught.value)
    assert "MEDIAMESH_EDGE_MAX_SOCKETS" in str(caught.value)


def test_it_knows_where_the_streams_are(monkeypatch) -> None:
    monkeypatch.setenv("MEDIAMESH_EDGE_STREAMS_ADDRESS", "streams:7000")
    assert Settings.load().streams_address == "streams:7000"
