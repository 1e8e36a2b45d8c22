"""Fixtures that every test may use: real servers on free ports, real parts, spoken to through the real client."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from mediamesh.cli.demo import mesh_up
from mediamesh.models.settings import Settings as ModelSettings
from mediamesh.models.store import open_store
from mediamesh.stack import ports
from mediamesh.stack.ports import free_ports
from mediamesh.stack.process import running
from mediamesh.stack.programs import SEAWEEDFS_PORTS, seaweedfs, valkey
from mediamesh.stack.settings import UpSettings

# A loaded machine is slow and not wrong: Hypothesis gives an example 200 ms, and a stall is no fault.
settings.register_profile("any machine", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# A shell ignores Ctrl-C for what it runs in the background, and so would every program that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class Store:
    """A real S3 store for the session."""

    endpoint_url: str
    access_key: str
    secret_key: str
    bucket: str


@pytest.fixture(scope="session", autouse=True)
def _own_ports():
    """Let each worker of a parallel run choose among ports of its own: two would find the same one free."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    with pytest.MonkeyPatch.context() as patch:
        if worker:
            # In steps of ten a port and its twin are the same worker's.
            own = ports._CANDIDATES[int(worker.removeprefix("gw")) % 10 :: 10]
            patch.setattr("mediamesh.stack.ports._CANDIDATES", own)
        yield


@pytest.fixture(scope="session")
async def valkey_url(tmp_path_factory):
    """Return the address of a real Valkey; tests share it, so keys carry something of the test."""
    data = tmp_path_factory.mktemp("valkey")
    (port,) = free_ports(1)
    async with running(valkey(port=port, data=data), data / "valkey.log"):
        yield f"redis://127.0.0.1:{port}/0"


@pytest.fixture(scope="session")
async def s3(tmp_path_factory):
    """Return a real SeaweedFS with an empty bucket; tests share it."""
    data = tmp_path_factory.mktemp("seaweedfs")
    own: dict[str, int] = dict(zip(SEAWEEDFS_PORTS, free_ports(len(SEAWEEDFS_PORTS)), strict=True))
    store = Store(f"http://127.0.0.1:{own['s3']}", "test-access-key", "test-secret-key", "media")
    program = seaweedfs(
        ports=own, data=data, access_key=store.access_key, secret_key=store.secret_key, bucket=store.bucket
    )
    async with running(program, data / "seaweedfs.log"):
        yield store


@pytest.fixture(scope="session")
def mesh(tmp_path_factory, model_store):
    """Return the whole mesh, with all its models, as ``mediamesh up`` runs it on a free port."""
    model_store.pull(model_store.manifest.choose(UpSettings.load().models))
    cache = str(model_store.cache.root)
    with mesh_up(tmp_path_factory.mktemp("mesh"), MEDIAMESH_MODELS_CACHE=cache) as running_mesh:
        yield running_mesh


@pytest.fixture(scope="session")
def model_store(tmp_path_factory):
    """Return the model store; pulled models are kept in MEDIAMESH_MODELS_CACHE, or shared by the workers of a run."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    own = os.environ.get("MEDIAMESH_MODELS_CACHE")
    with open_store(ModelSettings(cache=Path(own) if own else shared / "pulled-models")) as store:
        yield store


@pytest.fixture(scope="session")
def pulled_repository(model_store, tmp_path_factory):
    """Return a function that pulls models and gives a repository of links to them."""

    def pull(*names: str) -> Path:
        chosen = model_store.manifest.choose(names)
        model_store.pull(chosen)
        repository = tmp_path_factory.mktemp("repository")
        for model in chosen:
            (repository / model.name).symlink_to(model_store.cache.directory(model))
        return Path(repository)

    return pull
