from __future__ import annotations

from pathlib import Path

import google.api
import google.rpc
import pytest

ROOT = Path(__file__).resolve().parents[2]
THIRD_PARTY = ROOT / "proto" / "third_party"
INSTALLED = {"google/rpc": Path(google.rpc.__path__[0]), "google/api": Path(google.api.__path__[0])}


def test_no_root_of_the_namespace_closes_it() -> None:
    roots = [ROOT / "servers", ROOT / "clients" / "python", ROOT / "generated" / "python"]
    assert all((root / "mediamesh").is_dir() for root in roots)
    assert [root for root in roots if (root / "mediamesh" / "__init__.py").exists()] == []


@pytest.mark.parametrize("folder", INSTALLED)
def test_third_party_protos_equal_those_of_their_packages(folder) -> None:
    ours = sorted((THIRD_PARTY / folder).glob("*.proto"))
    assert ours
    for proto in ours:
        assert proto.read_bytes() == (INSTALLED[folder] / proto.name).read_bytes(), proto.name


def test_nothing_names_a_registry_or_a_machine() -> None:
    lock = (ROOT / "clients" / "web" / "package-lock.json").read_text()
    assert '"resolved": "http' not in lock
    assert "://" not in (ROOT / "deploy" / "constraints.txt").read_text()
