"""Settings of the inference server."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import DirectoryPath, Field

from mediamesh.client.channel import MAX_TENSORS_BYTES
from mediamesh.inference.datatypes import MOST_TEXTS
from mediamesh.kit.settings import ServerSettings

__all__ = ["Settings"]


class Settings(ServerSettings):
    """Read from ``MEDIAMESH_INFERENCE_*`` and the table ``[inference]``."""

    section: ClassVar[str] = "inference"

    event_loop: Literal["asyncio", "uvloop"] = Field(
        default="uvloop",
        description="Loop of the process; uvloop, which costs a tenth less a small request, where it is there.",
    )
    model_repository: DirectoryPath = Field(
        description="Directory of the models, in Triton's layout: NAME/config.pbtxt and NAME/VERSION/model.onnx."
    )
    model_control: Literal["none", "explicit", "poll"] = Field(
        default="none",
        description="none loads all models at the start; explicit those of load_models, and any on request; "
        "poll all, and again what changes in the repository.",
    )
    load_models: tuple[str, ...] = Field(
        default=(), description="Models that explicit control loads at the start; * stands for all."
    )
    poll_seconds: float = Field(
        default=15.0, gt=0, le=86_400, description="Time between two looks for changes, when model_control is poll."
    )
    loads_at_once: int = Field(default=2, ge=1, le=64, description="Versions of models that are loaded side by side.")
    unload_seconds: float = Field(
        default=30.0, ge=0, le=3600, description="Longest time that requests may go on in a model that is unloaded."
    )
    providers: tuple[str, ...] = Field(
        default=(),
        description="Execution providers of onnxruntime in order of preference; none takes CUDA where it is, then CPU.",
    )
    cpu_threads: int = Field(
        default=0, ge=0, le=1024, description="Cores that a model on the CPU may use; 0 means all that the process has."
    )
    measure_seconds: float = Field(
        default=0.2,
        ge=0,
        le=60,
        description="Time spent on each model that batches when it is loaded, to see which batches pay; 0: none.",
    )
    memory_bytes: int = Field(
        default=0,
        ge=0,
        le=1 << 50,
        description="Memory that the process may have of its own; a run that wants more fails alone. 0: no limit.",
    )
    queue_requests: int = Field(
        default=2048, ge=1, le=1_000_000, description="Requests that wait for one model; the next is refused."
    )
    queue_bytes: int = Field(
        default=512 << 20, ge=1024, le=1 << 40, description="Tensor bytes that wait for one model; more are refused."
    )
    stream_requests: int = Field(
        default=2048, ge=1, le=1_000_000, description="Requests in flight on one stream; beyond it reading pauses."
    )
    stream_bytes: int = Field(
        default=64 << 20,
        ge=1024,
        le=1 << 40,
        description="Bytes of answers that wait to be written on one stream; beyond it reading pauses.",
    )
    max_message_bytes: int = Field(
        default=MAX_TENSORS_BYTES,
        ge=1024,
        le=1 << 30,
        description="Largest message, of a request or an answer; holds its tensors.",
    )
    bytes_elements: int = Field(
        default=MOST_TEXTS,
        ge=1,
        le=1 << 30,
        description="Most elements of an input of BYTES; reading them holds up every other request.",
    )
    shared_memory: Literal["map", "copy", "off"] = Field(
        default="map",
        description="How inputs in shared memory are read: in place, trusting its owners; copied; or not at all.",
    )
    shared_memory_regions: int = Field(
        default=128, ge=1, le=65_536, description="Regions of shared memory registered at once; two files each."
    )
    rest_json_bytes: int = Field(
        default=16 << 20,
        ge=1024,
        le=1 << 30,
        description="Most JSON read of one request over HTTP; tensors go behind it.",
    )
