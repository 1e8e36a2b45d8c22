"""The servers that are compared: how each is made, started and asked."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tests.benchmarks.peers.environments import environment

if TYPE_CHECKING:
    from tests.benchmarks.peers.subjects import Subject

__all__ = ["PEERS", "Command", "Peer", "triton"]

HOSTED = Path(__file__).parent / "hosted"


@dataclass(frozen=True)
class Command:
    """What starts a server.

    Attributes:
        argv: Path and arguments.
        env: Variables on top of this process's own.
        folder: Where it runs.
    """

    argv: Sequence[str | Path]
    env: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None


@dataclass(frozen=True)
class Peer:
    """A server.

    Attributes:
        wire: ``grpc`` for ModelInfer; ``raw`` for the bytes of the tensor over HTTP; ``upload`` for them as a file.
        command: Makes what starts it, from the model, a port and a folder for its files.
        path: Of HTTP.
        interrupt: It ends on SIGINT, not SIGTERM.
    """

    wire: Literal["grpc", "raw", "upload"]
    command: Callable[[Subject, int, Path], Command]
    path: str = ""
    interrupt: bool = False


def _hosted(subject: Subject, port: int) -> dict[str, str]:
    return {
        "PEER_MODEL": subject.name,
        "PEER_FILE": str(subject.file),
        "PEER_INPUT": subject.input,
        "PEER_OUTPUT": subject.output,
        "PEER_SHAPE": ",".join(map(str, subject.shape)),
        "PEER_PORT": str(port),
        "PEER_FOLDER": str(HOSTED),
    }


def _ours(subject: Subject, port: int, folder: Path) -> Command:
    model = folder / "models" / subject.name
    (model / "1").mkdir(parents=True)
    (model / "1" / "model.onnx").symlink_to(subject.file)
    (model / "config.pbtxt").write_text(subject.config)
    env = {"MODEL_REPOSITORY": str(folder / "models"), "PORT": str(port), "HOST": "127.0.0.1"}
    own = {f"MEDIAMESH_INFERENCE_{name}": value for name, value in env.items()}
    return Command([sys.executable, "-m", "mediamesh.inference"], {**own, "MEDIAMESH_LOG_LEVEL": "warning"})


def _script(name: str, *requirements: str) -> Callable[[Subject, int, Path], Command]:
    def command(subject: Subject, port: int, folder: Path) -> Command:
        python = environment(name, (*requirements, "onnxruntime")) / "bin" / "python"
        return Command([python, HOSTED / f"{name}_server.py"], _hosted(subject, port), folder)

    return command


def _mlserver(subject: Subject, port: int, folder: Path) -> Command:
    # Its worker process dies with uvloop 0.22 and later; without one the model runs in the server's process.
    made = environment("mlserver", ("mlserver==1.7.1", "uvloop<0.22", "onnxruntime"))
    settings = {"host": "127.0.0.1", "grpc_port": port, "http_port": port + 1, "metrics_port": port + 2}
    settings |= {"parallel_workers": 0, "debug": False, "grpc_max_message_length": 64 << 20}
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(
        json.dumps({"name": subject.name, "implementation": "mlserver_model.Hosted"})
    )
    env = {**_hosted(subject, port), "PYTHONPATH": str(HOSTED)}
    return Command([made / "bin" / "mlserver", "start", str(folder)], env, folder)


def triton(models: Path, port: int, folder: Path, *options: str) -> Command:
    """Return Triton's binary from the package nvidia-pytriton (52 MB), on a repository of models for Python.

    Args:
        models: The repository.
        port: Of gRPC; the next one is that of HTTP.
        folder: Where its backend is put together.
        options: Further ones of its command line.
    """
    made = environment("triton", ("nvidia-pytriton==0.7.0", "onnxruntime"))
    python = made / "bin" / "python"
    says = "import json,sys,sysconfig; print(json.dumps([sysconfig.get_path('purelib'), "
    says += "sysconfig.get_config_var('LIBDIR'), '%d.%d' % sys.version_info[:2]]))"
    packages, libraries, version = json.loads(subprocess.check_output([python, "-c", says]))
    home = Path(packages) / "pytriton" / "tritonserver"
    backend = folder / "backends" / "python"
    backend.mkdir(parents=True)
    for file in (*(home / "backends" / "python").iterdir(), *(home / "python_backend_stubs" / version).iterdir()):
        shutil.copy(file, backend)
    argv: list[str | Path] = [home / "bin" / "tritonserver", "--model-repository", models]
    argv += ["--backend-directory", folder / "backends", "--allow-metrics", "false"]
    argv += ["--grpc-address", "127.0.0.1", "--http-address", "127.0.0.1"]
    argv += ["--grpc-port", str(port), "--http-port", str(port + 1), *options]
    env = {
        "LD_LIBRARY_PATH": f"{packages}/nvidia_pytriton.libs:{libraries}",
        "PYTHONPATH": packages,
        "PATH": f"{made / 'bin'}:/usr/bin:/bin",
    }
    return Command(argv, env, folder)


def _triton(subject: Subject, port: int, folder: Path) -> Command:
    model = folder / "models" / subject.name
    (model / "1").mkdir(parents=True)
    shutil.copy(HOSTED / "triton_model.py", model / "1" / "model.py")
    dims, outputs = list(subject.shape), list(subject.expected.shape[1:])
    (model / "config.pbtxt").write_text(
        f'backend: "python" max_batch_size: 16 dynamic_batching {{}}\n'
        f'input {{ name: "{subject.input}" data_type: TYPE_FP32 dims: {dims} }}\n'
        f'output {{ name: "{subject.output}" data_type: TYPE_FP32 dims: {outputs} }}\n'
    )
    command = triton(folder / "models", port, folder)
    return Command(command.argv, {**command.env, **_hosted(subject, port)}, folder)


PEERS: Mapping[str, Peer] = {
    "mediamesh": Peer("grpc", _ours),
    "triton": Peer("grpc", _triton),
    "mosec": Peer("raw", _script("mosec", "mosec==0.9.8"), "/inference"),
    "kserve": Peer("grpc", _script("kserve", "kserve==0.21.0")),
    "litserve": Peer("upload", _script("litserve", "litserve==0.2.19", "python-multipart"), "/predict"),
    "mlserver": Peer("grpc", _mlserver, interrupt=True),
}
