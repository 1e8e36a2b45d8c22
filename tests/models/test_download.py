"""Downloads go on where they broke off, and what is not what was pinned never gets its name."""

from __future__ import annotations

import errno
import hashlib
from typing import NamedTuple

import httpx
import pytest

from mediamesh.models.download import Downloader, Pinned
from mediamesh.models.errors import PullFailed
from mediamesh.wire.errors import ChecksumMismatch
from tests.models.wheels import Offer, offering

CONTENT = bytes(range(256)) * 4096  # 1 MiB


class Usage(NamedTuple):
    """How a disk stands."""

    free: int


class Notes:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.done: list[int] = []

    def progress(self, what: str, done: int, total: int) -> None:
        assert done <= total
        self.done.append(done)

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def server():
    with offering({"/file": CONTENT}) as offer:
        yield offer


@pytest.fixture
def offer(server):
    server.ranges, server.hold = True, None
    for queue in (server.breaks, server.statuses, server.asked):
        queue.clear()
    return server


@pytest.fixture
def watcher() -> Notes:
    return Notes()


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture(scope="module")
def http():
    with httpx.Client() as client:
        yield client


@pytest.fixture
def downloader(http, watcher, pauses):
    class Kept(httpx.BaseTransport):
        """Lends the module's client, whose connections stay open."""

        def handle_request(self, request):
            return http.send(request, stream=True)

    with Downloader(
        lambda: httpx.Client(transport=Kept()), attempts=3, watcher=watcher, sleep=pauses.append
    ) as downloader:
        yield downloader


def pinned(offer: Offer, content: bytes = CONTENT, path: str = "/file") -> Pinned:
    return Pinned("file 1.0", f"{offer.url}{path}", hashlib.sha256(content).hexdigest(), len(content))


def test_a_file_arrives_whole_and_under_its_name_only(offer, downloader, watcher, tmp_path) -> None:
    downloader.fetch(pinned(offer), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert watcher.done[-1] == len(CONTENT)


def test_a_broken_connection_is_gone_on_with_where_it_broke(offer, downloader, pauses, tmp_path) -> None:
    offer.breaks = [300_000, 200_000]
    downloader.fetch(pinned(offer), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    starts = [int(asked[6:-1]) if asked else 0 for _, asked in offer.asked]
    assert starts == sorted(starts)
    assert starts[0] == 0
    assert starts[-1] > 0
    assert len(pauses) == len(starts) - 1


def test_a_server_without_ranges_is_asked_for_the_whole_again(offer, downloader, tmp_path) -> None:
    offer.ranges, offer.breaks = False, [500_000]
    downloader.fetch(pinned(offer), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_what_another_process_left_is_gone_on_with(offer, downloader, tmp_path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT[:1000])
    downloader.fetch(pinned(offer), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert offer.asked == [("/file", "bytes=1000-")]


@pytest.mark.parametrize("left", [b"x" * 1000, b"x" * len(CONTENT), b"x" * (len(CONTENT) + 5)])
def test_a_damaged_part_is_thrown_away_and_fetched_anew(offer, downloader, tmp_path, left) -> None:
    (tmp_path / "file.part").write_bytes(left)
    downloader.fetch(pinned(offer), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "content",
    [CONTENT[:-1] + b"!", CONTENT[:-7]],
    ids=["another byte at the end", "longer than pinned"],
)
def test_other_bytes_than_pinned_are_refused_and_deleted(offer, downloader, tmp_path, content) -> None:
    with pytest.raises(ChecksumMismatch, match=r"file 1\.0: the download has .* the manifest pins"):
        downloader.fetch(pinned(offer, content), tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_too_short_is_given_up_after_some_attempts(offer, downloader, tmp_path) -> None:
    offer.ranges = False
    with pytest.raises(PullFailed, match=r"file 1\.0 could not be downloaded"):
        downloader.fetch(pinned(offer, CONTENT + b"more"), tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_a_server_that_is_busy_is_asked_again_after_growing_pauses(
    offer, downloader, pauses, watcher, tmp_path
) -> None:
    offer.statuses = [503, 429]
    downloader.fetch(pinned(offer), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert len(pauses) == 2
    assert "the server answered 503; trying again at byte 0" in watcher.notes[0]


def test_a_file_that_is_not_there_is_not_asked_for_twice(offer, downloader, tmp_path) -> None:
    with pytest.raises(PullFailed, match="the server answered 404"):
        downloader.fetch(pinned(offer, path="/other"), tmp_path / "file")
    assert len(offer.asked) == 1


def test_without_a_network_the_error_says_so(downloader, pauses, tmp_path) -> None:
    with offering({}) as gone:
        pass
    with pytest.raises(PullFailed, match="could not be downloaded: ConnectError"):
        downloader.fetch(pinned(gone), tmp_path / "file")
    assert len(pauses) == 2


def test_a_file_of_this_machine_is_copied(downloader, tmp_path) -> None:
    (tmp_path / "a b").write_bytes(CONTENT)
    file = Pinned("file", (tmp_path / "a b").as_uri(), hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
    downloader.fetch(file, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_file_of_this_machine_that_is_gone_is_named(downloader, tmp_path) -> None:
    with pytest.raises(PullFailed, match="No such file"):
        downloader.fetch(Pinned("file", (tmp_path / "gone").as_uri(), "0" * 64, 5), tmp_path / "file")


def test_no_download_starts_that_has_no_room(offer, downloader, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(free=100_000))
    with pytest.raises(PullFailed, match=r"No room to download file 1\.0: 1\.0 MB are missing, .* has 0\.1 MB free"):
        downloader.fetch(pinned(offer), tmp_path / "file")
    assert offer.asked == []


def test_a_disk_that_fills_up_on_the_way_is_left_with_what_it_had(offer, downloader, tmp_path, watcher) -> None:
    def full(what: str, done: int, total: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    watcher.progress = full
    with pytest.raises(PullFailed, match=r"is full\. MEDIAMESH_MODELS_CACHE moves the cache"):
        downloader.fetch(pinned(offer), tmp_path / "file")
    assert list(tmp_path.iterdir()) == []
