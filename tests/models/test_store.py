"""A model is in the cache, whole and as pinned, or it is not."""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import replace

import pytest

from mediamesh.models.cache import Cache
from mediamesh.models.errors import BadWeights, ManifestError, PullFailed
from mediamesh.models.manifest import PackageFile, ShippedFile, UrlFile
from mediamesh.models.store import State
from mediamesh.wire.errors import ChecksumMismatch, NotFound
from tests.models.test_download import Notes
from tests.models.tiny_store import WEIGHTS, model, tiny_store
from tests.models.wheels import offering, package, wheel


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A wheel, and a server that offers it."""
    path = wheel(tmp_path_factory.mktemp("wheels"), {"tiny/model.onnx": WEIGHTS, "tiny/more.txt": b"more"})
    with offering({"/tiny.whl": path.read_bytes()}) as offer:
        yield package(path), offer


@pytest.fixture
def tiny(shelf):
    shelf[1].asked.clear()
    return shelf[0]


@pytest.fixture
def urls(shelf):
    return {"tiny-weights": f"{shelf[1].url}/tiny.whl"}


@pytest.fixture
def opened(tmp_path, urls):
    """Open a store of these models."""
    contexts = []

    def opened(*models, watcher=None):
        context = tiny_store(tmp_path, models, urls, watcher or Notes())
        contexts.append(context)
        return context.__enter__()

    yield opened
    for context in contexts:
        context.__exit__(None, None, None)


def left_over(store) -> list[str]:
    places = (store.cache.downloads, store.cache.root / "work")
    return [path.name for place in places if place.is_dir() for path in place.iterdir()]


def test_a_pulled_model_lies_in_triton_s_layout_and_nothing_else_is_left(opened, tiny) -> None:
    net = model("net", tiny)
    store, _ = opened(net)
    assert store.state(net) is State.ABSENT
    store.pull([net])
    assert store.state(net) is State.HERE
    repository = store.repository(["things"])
    assert (repository / "net" / "1" / "model.onnx").read_bytes() == WEIGHTS
    assert (repository / "net" / "config.pbtxt").read_text() == 'backend: "onnxruntime"\n'
    assert store.files("net") == repository / "net" / "1"
    assert store.verify(net) == []
    assert left_over(store) == []


def test_models_of_one_package_share_one_question_and_one_download(opened, tiny, shelf) -> None:
    models = [model("net", tiny), model("other", tiny)]
    store, index = opened(*models)
    store.pull(models)
    assert index.asked == [["tiny-weights"]]
    assert len(shelf[1].asked) == 1


def test_what_is_here_is_not_pulled_again(opened, tiny) -> None:
    net = model("net", tiny)
    store, index = opened(net)
    store.pull([net])
    store.pull([net])
    assert len(index.asked) == 1
    store.pull([net], again=True)
    assert len(index.asked) == 2


def test_a_download_that_is_kept_serves_the_next_pull(opened, tiny, shelf) -> None:
    net = model("net", tiny)
    store, index = opened(net)
    store.pull([net], keep_downloads=True)
    store.pull([net], again=True)
    assert len(index.asked) == len(shelf[1].asked) == 1
    assert left_over(store) == []


def test_another_entry_makes_a_model_outdated_and_a_pull_replaces_it(opened, tiny) -> None:
    net = model("net", tiny)
    opened(net)[0].pull([net])
    files = {**net.files, "more.txt": ""}
    changed = replace(net, sources={**net.sources, "more.txt": PackageFile(tiny, "tiny/more.txt")})
    changed = replace(changed, files=files)
    store, _ = opened(changed)
    assert store.state(changed) is State.OUTDATED
    with pytest.raises(NotFound, match="Not pulled, or outdated: net; `mediamesh models pull net` brings it"):
        store.files("net")
    store.pull([changed])
    assert (store.files("net") / "more.txt").read_bytes() == b"more"
    assert left_over(store) == []


def test_another_config_reaches_a_pulled_model_without_a_pull(opened, tiny, tmp_path) -> None:
    net = model("net", tiny)
    store, _ = opened(net)
    store.pull([net])
    (tmp_path / "config.pbtxt").write_text("max_batch_size: 4\n")
    assert (store.repository(["things"]) / "net" / "config.pbtxt").read_text() == "max_batch_size: 4\n"


def test_two_sets_make_one_repository_of_links(opened, tiny) -> None:
    models = [
        model("net", tiny),
        model("other", tiny, set="more"),
        model("words", tiny, backend="", config="", set="more"),
    ]
    store, _ = opened(*models)
    store.pull(models)
    for _ in range(2):
        repository = store.repository(["more", "things"])
        assert sorted(path.name for path in repository.iterdir()) == ["net", "other"]
        assert (repository / "net" / "1" / "model.onnx").read_bytes() == WEIGHTS
    assert not (store.files("words").parent / "config.pbtxt").exists()


def test_who_waited_for_another_to_make_a_repository_leaves_it_as_it_is(opened, tiny) -> None:
    models = [model("net", tiny), model("other", tiny, set="more")]
    store, _ = opened(*models)
    store.pull(models)
    waiting, made = threading.Event(), []

    class Waits(Notes):
        def note(self, text: str) -> None:
            waiting.set()

    class Waiting(Cache):
        def locked(self, name, watcher=None):
            return super().locked(name, Waits())

    with store.cache.locked("repository.both"):
        thread = threading.Thread(target=lambda: made.append(Waiting(store.cache.root).link("both", models)))
        thread.start()
        assert waiting.wait(20)
        place = store.cache.root / "repositories" / "both"
        place.mkdir(parents=True)
        for own in models:
            (place / own.name).symlink_to(store.cache.directory(own))
        os.utime(place, (0, 0))
    thread.join(20)
    assert made == [place]
    assert place.stat().st_mtime == 0


def test_data_alone_is_no_repository(opened, tiny) -> None:
    words = model("words", tiny, backend="", config="")
    store, _ = opened(words)
    store.pull([words])
    with pytest.raises(NotFound, match="things: data only"):
        store.repository(["things"])


def test_a_set_that_is_not_all_here_names_what_is_missing(opened, tiny) -> None:
    net, other = model("net", tiny), model("other", tiny)
    store, _ = opened(net, other)
    store.pull([net])
    with pytest.raises(NotFound, match="Not pulled, or outdated: other;"):
        store.repository(["things"])


def test_the_name_of_a_set_is_not_that_of_files(opened, tiny) -> None:
    store, _ = opened(model("net", tiny))
    with pytest.raises(NotFound, match="'things' is a set"):
        store.files("things")


def test_a_file_that_changed_since_is_found(opened, tiny) -> None:
    net = model("net", tiny)
    store, _ = opened(net)
    store.pull([net])
    (store.files("net") / "model.onnx").write_bytes(WEIGHTS[:-1])
    assert "SHA-256 is" in store.verify(net)[0]
    (store.files("net") / "model.onnx").unlink()
    assert store.state(net) is State.OUTDATED


@pytest.mark.parametrize("receipt", ["", "{", '{"recipe": 1}', '{"recipe": "x", "files": 3}'])
def test_a_model_with_a_torn_receipt_is_pulled_again(opened, tiny, receipt) -> None:
    net = model("net", tiny)
    store, _ = opened(net)
    store.pull([net])
    (store.cache.directory(net) / "pulled.json").write_text(receipt)
    assert store.state(net) is State.ABSENT
    store.pull([net])
    assert store.state(net) is State.HERE


def test_what_a_converter_should_not_have_written_is_refused(opened, tiny) -> None:
    net = model("net", tiny, files={"model.onnx": "", "labels.txt": ""})
    store, _ = opened(net)
    with pytest.raises(
        BadWeights, match=r"net: converter plain_copy wrote model\.onnx, the manifest expects labels\.txt"
    ):
        store.pull([net])
    assert store.state(net) is State.ABSENT


def test_a_result_of_other_bytes_is_refused(opened, tiny) -> None:
    net = model("net", tiny, files={"model.onnx": "0" * 64})
    store, _ = opened(net)
    with pytest.raises(ChecksumMismatch, match=r"net: .*model\.onnx: SHA-256 is"):
        store.pull([net])
    assert not store.cache.directory(net).exists()
    assert not list((store.cache.root / "work").iterdir())


def test_a_member_that_is_not_in_the_wheel_is_named(opened, tiny) -> None:
    net = model("net", tiny)
    gone = replace(net, sources={"model.onnx": PackageFile(tiny, "tiny/gone.onnx")})
    store, _ = opened(gone)
    with pytest.raises(BadWeights, match=r"there is no file tiny/gone\.onnx in it"):
        store.pull([gone])


def test_a_package_that_is_no_archive_is_named(opened, tiny, shelf, urls) -> None:
    content = b"no archive"
    shelf[1].files["/broken.whl"], urls["broken"] = content, f"{shelf[1].url}/broken.whl"
    digest = hashlib.sha256(content).hexdigest()
    net = model("net", replace(tiny, name="broken", sha256=digest, size=len(content)))
    store, _ = opened(net)
    with pytest.raises(BadWeights, match=r"tiny/model\.onnx: File is not a zip file"):
        store.pull([net])


def test_a_package_of_other_bytes_is_refused(opened, tiny) -> None:
    net = model("net", replace(tiny, sha256="0" * 64))
    store, _ = opened(net)
    with pytest.raises(ChecksumMismatch, match=r"tiny-weights 1\.0: the download has .* the manifest pins"):
        store.pull([net])
    assert left_over(store) == []


def test_one_model_that_fails_keeps_no_other_back(opened, tiny) -> None:
    net = model("net", tiny)
    lost = [model(f"lost{number}", replace(tiny, name=f"gone{number}", sha256=f"{number}" * 64)) for number in (1, 2)]
    store, _ = opened(lost[0], net, lost[1])
    with pytest.raises(
        PullFailed, match=r"(?s)2 of 3 models could not be pulled:\n  lost1: .*gone1.*\n  lost2: .*gone2"
    ):
        store.pull(store.manifest.models)
    assert store.state(net) is State.HERE


def test_a_shipped_file_that_changed_is_refused(opened, tmp_path) -> None:
    (tmp_path / "weights").write_bytes(b"others")
    net = model("net", ShippedFile("weights", "0" * 64))
    store, _ = opened(net)
    with pytest.raises(ChecksumMismatch, match="weights: SHA-256 is"):
        store.pull([net])


def test_a_file_of_the_web_is_pulled_too(opened, tiny, shelf) -> None:
    net = model("net", UrlFile(f"{shelf[1].url}/tiny.whl", tiny.sha256, tiny.size), files={"model.onnx": tiny.sha256})
    store, _ = opened(net)
    store.pull([net])
    assert store.verify(net) == []


def test_a_config_that_is_not_there_is_told_with_the_model(opened, tiny) -> None:
    net = model("net", tiny, config="gone.pbtxt")
    store, _ = opened(net)
    with pytest.raises(ManifestError, match=r"model net: config: .*gone\.pbtxt"):
        store.pull([net])


def test_a_cache_that_cannot_be_written_is_told(opened, tiny, tmp_path) -> None:
    net = model("net", tiny)
    (tmp_path / "cache").write_text("a file")
    store, _ = opened(net)
    with pytest.raises(PullFailed, match=r"Cannot make net: .*cache"):
        store.pull([net])


def test_two_pulls_at_once_download_and_make_a_model_once(opened, tiny, shelf) -> None:
    net, offer = model("net", tiny), shelf[1]
    offer.hold = threading.Event()
    waiting = threading.Event()

    class Waits(Notes):
        def note(self, text: str) -> None:
            if "another process is at it" in text:
                waiting.set()

    stores = [opened(net, watcher=Waits())[0] for _ in range(2)]
    pulls = [threading.Thread(target=store.pull, args=[[net]]) for store in stores]
    for pull in pulls:
        pull.start()
    assert waiting.wait(20)
    offer.hold.set()
    for pull in pulls:
        pull.join(20)
    offer.hold = None
    assert len(offer.asked) == 1
    assert all(store.verify(net) == [] for store in stores)
