"""Behind a pool no request fails, whatever happens to one of two servers: every request is answered once and right."""

from __future__ import annotations

import pytest

from tests.chaos.inference_load import MODEL, Asked, Load, add_version, address, faults, inference_servers, loaded

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]
_SHOWN = 20


@pytest.fixture
async def servers(tmp_path):
    async with inference_servers(tmp_path) as parts:
        yield parts


def verify(load: Load) -> None:
    found = list(faults(load.records))
    if found:
        pytest.fail(f"{len(found)} faults of {load.answers} answers:\n" + "\n".join(found[:_SHOWN]), pytrace=False)


async def test_servers_are_killed_in_turn(servers) -> None:
    async with loaded(servers) as load:
        for part in (*servers, *servers):
            await part.kill()
            await load.more()
            await part.start()
            await load.more()
    verify(load)


async def test_servers_are_sent_away_in_turn(servers) -> None:
    async with loaded(servers) as load:
        for part in servers:
            assert await part.stop() == 0
            await load.more()
            await part.start()
            await load.more()
    verify(load)


async def test_all_servers_are_gone_for_a_while(servers) -> None:
    async with loaded(servers) as load:
        for part in servers:
            await part.kill()
        for part in servers:
            await part.start()
        await load.more()
    verify(load)


async def test_a_new_version_is_loaded_on_one_server_after_the_other(servers, tmp_path) -> None:
    async with loaded(servers) as load:
        for version in (2, 3):
            for number in range(len(servers)):
                add_version(tmp_path / str(number) / "models", version)
            await load.client.models.load(MODEL)
            await load.more()
    verify(load)
    versions = [record.version for record in load.records if record.kind == "answered"]
    assert set(versions) == {1, 2, 3}
    assert set(versions[-50:]) == {3}


async def test_a_model_is_loaded_again_on_the_only_server(tmp_path) -> None:
    async with inference_servers(tmp_path, 1) as parts, loaded(parts) as load:
        for version in (2, 3):
            add_version(tmp_path / "0" / "models", version)
            await load.client.models.load(MODEL)
            await load.more()
    verify(load)


async def test_a_model_is_unloaded_and_loaded_on_one_server_after_the_other(servers) -> None:
    async with loaded(servers) as load:
        for part in (*servers, *servers):
            await load.client.models.unload(MODEL, server=address(part))
            await load.more()
            await load.client.models.load(MODEL, server=address(part))
            await load.more()
    verify(load)


def test_the_checker_sees_what_is_wrong() -> None:
    records = [
        Asked(0, "asked", 1),
        Asked(0, "asked", 2),
        Asked(0, "asked", 3),
        Asked(0, "asked", 4),
        Asked(1, "answered", 1, 1, 2.0),
        Asked(1, "answered", 2, 1, 2.0),
        Asked(1, "answered", 1, 1, 2.0),
        Asked(1, "failed", 3, note="Unavailable: gone"),
    ]
    assert list(faults(records)) == [
        "2 was answered 2.0 by version 1",
        "3 failed: Unavailable: gone",
        "1 was answered 2 times",
        "4 was answered 0 times",
    ]
