"""``mediamesh models`` lists, pulls, verifies and finds, and says in a sentence what it cannot."""

from __future__ import annotations

import hashlib

import pytest
from typer.testing import CliRunner

from mediamesh.cli.main import app

CONTENT = b"weights"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    digest = hashlib.sha256(CONTENT).hexdigest()
    entries = "".join(
        f"""
[[model]]
name = "{name}"
set = "{set_name}"
{backend}
converter = "plain_copy"
licence = "MIT"
purpose = "Tests of the command line"
sources = {{ "{file}" = {{ path = "weights", sha256 = "{digest}" }} }}
files = {{ "{file}" = "{digest}" }}
"""
        for name, set_name, file, backend in (
            ("net", "things", "model.onnx", 'backend = "onnxruntime"'),
            ("words", "data_only", "words.txt", ""),
        )
    )
    (tmp_path / "models.toml").write_text(entries)
    (tmp_path / "weights").write_bytes(CONTENT)
    config = tmp_path / "sets" / "things" / "net" / "config.pbtxt"
    config.parent.mkdir(parents=True)
    config.write_text('name: "net"\nbackend: "onnxruntime"\n')
    monkeypatch.setenv("MEDIAMESH_MODELS_MANIFEST", str(tmp_path / "models.toml"))
    monkeypatch.setenv("MEDIAMESH_MODELS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def run(cache):
    def run(*arguments: str, code: int = 0):
        done = CliRunner().invoke(app, ["models", *arguments])
        assert done.exit_code == code, done.output
        return done

    return run


def test_list_tells_what_is_here_and_what_is_not(run) -> None:
    run("pull", "net")
    lines = run("list").stdout.splitlines()
    assert lines[0].split() == ["set", "model", "state", "size", "licence", "what", "for"]
    assert [line.split()[:4] for line in lines[1:]] == [
        ["things", "net", "here", "0.0"],
        ["data_only", "words", "not", "pulled"],
    ]
    assert "Tests of the command line" in lines[1]
    assert "words" not in run("list", "things").stdout


def test_a_repository_is_printed_alone_so_that_a_shell_can_use_it(run, cache) -> None:
    found = run("path", "--repository", "things", "--pull")
    assert found.stdout == f"{cache / 'sets' / 'things'}\n"
    assert "net: converting" in found.stderr
    assert (cache / "sets" / "things" / "net" / "1" / "model.onnx").read_bytes() == CONTENT
    assert run("path", "net").stdout == f"{cache / 'sets' / 'things' / 'net' / '1'}\n"


def test_nothing_is_pulled_that_nobody_asked_for(run, cache) -> None:
    missing = run("path", "--repository", "things", code=1)
    assert "Not pulled, or outdated: net; `mediamesh models pull net` brings it." in missing.stderr
    assert not cache.exists()


def test_all_models_are_pulled_and_the_sum_is_told(run) -> None:
    assert "2 models are here: 0.0 MB in" in run("pull", "--all").stderr


def test_verify_finds_what_changed_and_says_what_helps(run, cache) -> None:
    run("pull", "--all")
    assert run("verify").stdout == "2 models are as they were made.\n"
    (cache / "data" / "words" / "1" / "words.txt").write_bytes(b"other words")
    faults = run("verify", code=1).stderr
    assert "words.txt: SHA-256 is" in faults
    assert "pull --again" in faults
    run("pull", "--again", "words")
    assert run("verify", "words").stdout == "1 models are as they were made.\n"


def test_verify_of_a_model_that_is_not_here_says_so(run) -> None:
    assert "Not pulled, or outdated: net" in run("verify", "net", code=1).stderr


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["pull"], 2, "Name models or sets, or --all; sets are things, data_only."),
        (["pull", "nets"], 1, "There is no model and no set 'nets'; there are models net, words; sets"),
        (["path"], 2, "Name a model, or --repository SET."),
        (["path", "net", "--repository", "things"], 2, "Name a model, or --repository SET."),
        (["path", "--repository", "nets"], 1, "There is no set 'nets'; there are things, data_only."),
        (["path", "--repository", "data_only"], 1, "data_only: data only, no model to serve."),
        (["path", "things"], 1, "'things' is a set; `mediamesh models path --repository things` says where it is."),
    ],
)
def test_what_cannot_be_is_answered_with_a_sentence(run, arguments, code, told) -> None:
    assert told in run(*arguments, code=code).stderr


def test_a_wrong_manifest_is_told_with_file_and_key(run, tmp_path) -> None:
    (tmp_path / "models.toml").write_text("[[model]]\n")
    assert f"{tmp_path / 'models.toml'}: model number 1: name: missing" in run("list", code=1).stderr


def test_a_wrong_setting_is_told_with_its_variable(run, monkeypatch) -> None:
    monkeypatch.setenv("MEDIAMESH_MODELS_ATTEMPTS", "0")
    assert "MEDIAMESH_MODELS_ATTEMPTS" in run("list", code=2).stderr


def test_the_cache_may_be_named_on_the_command_line(run, tmp_path) -> None:
    found = run("path", "--repository", "things", "--pull", "--cache", str(tmp_path / "other"))
    assert found.stdout == f"{tmp_path / 'other' / 'sets' / 'things'}\n"
