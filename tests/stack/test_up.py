from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

from mediamesh.kit.settings import SettingsError
from mediamesh.stack.folder import Folder
from mediamesh.stack.mesh import programs
from mediamesh.stack.models import model_repository
from mediamesh.stack.settings import UpSettings

pytestmark = pytest.mark.stack

MESH = {"valkey", "seaweedfs", "media", "inference", "agents", "streams", "orchestrator", "edge", "envoy"}
UP = "import typer; from mediamesh.cli.up import up; typer.run(up)"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch) -> None:
    for variable in [name for name in os.environ if name.startswith("MEDIAMESH_")]:
        monkeypatch.delenv(variable)


@pytest.fixture
def folder(tmp_path) -> Folder:
    found = Folder(tmp_path)
    with found.claimed():
        pass
    return found


def up(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", UP, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_the_mesh_is_nine_programs_that_know_each_other(folder) -> None:
    parts = {part.name: part for part in programs(UpSettings.load(data=folder.path), folder)}
    assert set(parts) == MESH
    ports = json.loads((folder.path / "ports.json").read_text())
    assert parts["media"].env["MEDIAMESH_MEDIA_PORT"] == str(ports["media"]["port"])
    assert parts["media"].env["MEDIAMESH_MEDIA_ENDPOINT_URL"] == f"http://127.0.0.1:{ports['seaweedfs']['s3']}"
    assert parts["media"].env["MEDIAMESH_MEDIA_SECRET_KEY"] == parts["seaweedfs"].env["AWS_SECRET_ACCESS_KEY"]
    assert parts["agents"].env["MEDIAMESH_AGENTS_INFERENCE_ADDRESS"] == f"127.0.0.1:{ports['inference']['port']}"
    assert json.loads(parts["orchestrator"].env["MEDIAMESH_ORCHESTRATOR_AGENT_ADDRESSES"]) == [
        f"127.0.0.1:{ports['agents']['port']}"
    ]
    inside = f"127.0.0.1:{ports['envoy']['inside']}"
    assert parts["edge"].env["MEDIAMESH_EDGE_STREAMS_ADDRESS"] == inside
    assert parts["orchestrator"].env["MEDIAMESH_ORCHESTRATOR_STREAMS_ADDRESS"] == inside
    assert parts["streams"].env["MEDIAMESH_STREAMS_VALKEY_URL"].endswith(f":{ports['valkey']['port']}/0")
    assert parts["streams"].env["MEDIAMESH_STREAMS_PUBLIC_URL"] == "ws://127.0.0.1:8080"


def test_replicas_of_the_streams_server_have_ports_of_their_own_and_one_door(folder) -> None:
    parts = programs(UpSettings.load(data=folder.path, stream_replicas=3, public_url="wss://mesh.example"), folder)
    replicas = [part for part in parts if part.name.startswith("streams")]
    assert [part.name for part in replicas] == ["streams", "streams-2", "streams-3"]
    assert len({part.env["MEDIAMESH_STREAMS_PORT"] for part in replicas}) == 3
    assert {part.env["MEDIAMESH_STREAMS_PUBLIC_URL"] for part in replicas} == {"wss://mesh.example"}
    config = (folder.of("envoy") / "envoy.yaml").read_text()
    assert all(f"port_value: {part.env['MEDIAMESH_STREAMS_PORT']}}}" in config for part in replicas)


def test_orchestrators_and_agents_have_replicas_too(folder) -> None:
    settings = UpSettings.load(data=folder.path, orchestrator_replicas=2, agent_replicas=2)
    parts = {part.name: part for part in programs(settings, folder)}
    assert {"orchestrator", "orchestrator-2", "agents", "agents-2"} <= parts.keys()
    known = json.loads(parts["orchestrator-2"].env["MEDIAMESH_ORCHESTRATOR_AGENT_ADDRESSES"])
    ports = [parts[name].env["MEDIAMESH_AGENTS_PORT"] for name in ("agents", "agents-2")]
    assert known == [f"127.0.0.1:{port}" for port in ports]


def test_models_of_the_store_are_served_beside_those_that_ship(folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MEDIAMESH_MODELS_CACHE", str(tmp_path / "cache"))
    told: list[str] = []
    place = folder.of("models")
    found = model_repository(UpSettings.load(models=["silero_vad"]), place, told.append)
    assert found == place
    assert sorted(path.name for path in found.iterdir()) == ["efficientnet_lite0_int8", "silero_vad"]
    assert all((path / "config.pbtxt").is_file() and (path / "1/model.onnx").is_file() for path in found.iterdir())
    assert not told
    # What is not wanted any more is gone from it; what cannot be had keeps nothing back.
    again = model_repository(UpSettings.load(models=["no_such_model"]), place, told.append)
    assert [path.name for path in again.iterdir()] == ["efficientnet_lite0_int8"]
    assert "no_such_model" in told[0]


def test_without_models_of_the_store_the_repository_is_served_as_it_is(folder) -> None:
    settings = UpSettings.load(models=[])
    assert model_repository(settings, folder.of("models"), print) == settings.model_repository


def test_secrets_are_on_no_command_line(folder) -> None:
    parts = programs(UpSettings.load(data=folder.path), folder)
    secret = Folder(folder.path).s3_keys()[1]
    assert not [part.name for part in parts if secret in " ".join(map(str, part.argv))]


def test_a_file_sets_the_mesh_and_its_servers(folder, tmp_path, monkeypatch) -> None:
    file = tmp_path / "mesh.toml"
    file.write_text('[up]\nport = 9000\nvalkey_port = 9001\nextra_agents = ["gpu:50060"]\n[media]\nport = 9002\n')
    monkeypatch.setenv("MEDIAMESH_CONFIG", str(file))
    monkeypatch.setenv("MEDIAMESH_UP_VALKEY_PORT", "9003")
    parts = {part.name: part for part in programs(UpSettings.load(), folder)}
    assert parts["envoy"].ports["MEDIAMESH_PORT (or --port)"] == 9000
    assert parts["valkey"].ports == {"MEDIAMESH_UP_VALKEY_PORT": 9003}
    assert parts["media"].ports["MEDIAMESH_MEDIA_PORT"] == 9002
    assert "gpu:50060" in parts["orchestrator"].env["MEDIAMESH_ORCHESTRATOR_AGENT_ADDRESSES"]


def test_a_wrong_setting_names_its_variable(monkeypatch) -> None:
    monkeypatch.setenv("MEDIAMESH_UP_VALKEY_PORT", "70000")
    with pytest.raises(SettingsError, match="MEDIAMESH_UP_VALKEY_PORT"):
        UpSettings.load()


def test_a_wrong_setting_ends_with_2(monkeypatch) -> None:
    monkeypatch.setenv("MEDIAMESH_UP_S3_MEMORY_MIB", "many")
    done = up()
    assert done.returncode == 2
    assert "MEDIAMESH_UP_S3_MEMORY_MIB: " in done.stderr


def test_a_folder_or_models_that_cannot_be_had_end_with_2(tmp_path, monkeypatch) -> None:
    file = tmp_path / "file"
    file.touch()
    done = up("--data", str(file))
    assert done.returncode == 2
    assert f"mediamesh cannot start:\n[Errno 17] File exists: '{file}'" in done.stderr
    monkeypatch.setenv("MEDIAMESH_UP_MODEL_REPOSITORY", "/nowhere")
    done = up("--data", str(tmp_path / "data"))
    assert done.returncode == 2
    assert "'/nowhere'" in done.stderr


def test_a_taken_door_ends_with_2_and_names_holder_and_remedy(tmp_path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        done = up("--port", str(port), "--data", str(tmp_path))
    assert done.returncode == 2
    assert f"port {port} for envoy is in use by pid {os.getpid()}" in done.stderr
    assert "--port" in done.stderr


def test_serve_refuses_a_server_that_does_not_exist() -> None:
    command = [sys.executable, "-c", "import typer; from mediamesh.cli.serve import serve; typer.run(serve)", "medai"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "There is no server medai; there are media," in done.stderr
