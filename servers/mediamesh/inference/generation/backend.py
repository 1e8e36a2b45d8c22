"""The backend ``mediamesh_decoder``: text generation with an ONNX decoder."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from mediamesh.api.inference.v2 import model_config_pb2 as config_pb
from mediamesh.inference.backend import Backend
from mediamesh.inference.configuration.config import CONFIG_FILE, LoadError
from mediamesh.inference.datatypes import TO_CONFIG
from mediamesh.inference.generation.counters import GenerationCounters
from mediamesh.inference.generation.decoder import Decoder
from mediamesh.inference.generation.generator import generating
from mediamesh.inference.generation.options import GENERATION_FILE, Facts, Options, read_facts, read_options
from mediamesh.inference.generation.prompt import Prompter
from mediamesh.inference.generation.request import INPUTS, OUTPUTS, Reader
from mediamesh.inference.generation.waiting import Waiting
from mediamesh.inference.onnx.providers import CPU, cores
from mediamesh.inference.tensors import Signature

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    from mediamesh.inference.datatypes import TensorSpec
    from mediamesh.inference.settings import Settings

__all__ = ["open_decoder"]

_LOG = logging.getLogger(__name__)


@asynccontextmanager
async def open_decoder(
    directory: Path, version: int, config: config_pb.ModelConfig, settings: Settings
) -> AsyncGenerator[Backend]:
    """Load a decoder for as long as the block lasts.

    Raises:
        LoadError: it cannot be loaded; names the file and what is wrong.
    """
    label = f"{directory.name}/{version}"
    full = _complete(directory, config)
    options = read_options(directory, config)
    file = directory / str(version) / full.default_model_filename
    facts = read_facts(file.with_name(GENERATION_FILE))
    context = options.context_tokens or facts.context_tokens
    where = f"{directory / CONFIG_FILE}: parameters"
    if context > facts.context_tokens:
        raise LoadError(f"{where}[context_tokens]: {context}, the model has {facts.context_tokens}.")
    if options.cache_tokens < context:
        raise LoadError(f"{where}[cache_tokens]: {options.cache_tokens} do not hold one sequence of {context} tokens.")
    decoder, prompter = await asyncio.to_thread(_open, label, file, facts, options, settings)
    _LOG.info("model %s on %s, %d rows of %d tokens", label, CPU, options.max_running, context)
    waiting = Waiting(
        label,
        max_requests=min(options.queue_requests or settings.queue_requests, settings.queue_requests),
        max_tokens=options.queue_tokens,
    )
    counters = GenerationCounters(directory.name, str(version), decoder.cache.token_bytes)
    reader = Reader(label, prompter, options, context=context, vocabulary=decoder.vocabulary)
    optional = [spec.name for spec in INPUTS]
    signature = Signature(label, INPUTS, OUTPUTS, 0, optional=optional, most_texts=settings.bytes_elements)
    async with generating(
        label, decoder, waiting, counters, options, reader=reader, prompter=prompter, ends=facts.end_token_ids
    ) as generator:
        yield Backend(full, signature, generator, (CPU,))


def _open(label: str, file: Path, facts: Facts, options: Options, settings: Settings) -> tuple[Decoder, Prompter]:
    if not file.is_file():
        raise LoadError(f"{file}: there is no such file.")
    prompter = Prompter(file.with_name("tokenizer.json"), facts)
    decoder = Decoder(
        label,
        file,
        rows=options.max_running,
        context=options.context_tokens or facts.context_tokens,
        threads=options.intra_op_thread_count or cores(settings.cpu_threads),
    )
    known = prompter.tokenizer.get_vocab_size(with_added_tokens=True)
    if known > decoder.vocabulary or any(token >= decoder.vocabulary for token in facts.end_token_ids):
        decoder.close()
        raise LoadError(f"{file}: has {decoder.vocabulary} tokens, fewer than the files beside it name ({known}).")
    return decoder, prompter


def _complete(directory: Path, config: config_pb.ModelConfig) -> config_pb.ModelConfig:
    """Return the configuration with what it leaves open.

    Raises:
        LoadError: it asks for what this backend does not do.
    """
    path = directory / CONFIG_FILE
    if not config.model_transaction_policy.decoupled:
        raise LoadError(
            f"{path}: model_transaction_policy.decoupled: this backend needs true: its answers are a stream."
        )
    if config.max_batch_size:
        raise LoadError(f"{path}: max_batch_size: expected 0: requests are batched step by step, see max_running.")
    full = config_pb.ModelConfig()
    full.CopyFrom(config)
    full.name = directory.name
    full.default_model_filename = config.default_model_filename or "model.onnx"
    _match(path, "input", config.input, INPUTS)
    _match(path, "output", config.output, OUTPUTS)
    del full.input[:], full.output[:]
    for spec in INPUTS:
        full.input.add(name=spec.name, data_type=TO_CONFIG[spec.datatype], dims=spec.shape, optional=True)
    for spec in OUTPUTS:
        full.output.add(name=spec.name, data_type=TO_CONFIG[spec.datatype], dims=spec.shape)
    return full


def _match(
    path: Path,
    field: str,
    described: Sequence[config_pb.ModelInput | config_pb.ModelOutput],
    specs: Sequence[TensorSpec],
) -> None:
    """Hold the tensors that a configuration names against those that every generative model has."""
    known = {spec.name: spec for spec in specs}
    for tensor in described:
        spec = known.get(tensor.name)
        if spec is None or (tensor.data_type, tuple(tensor.dims)) != (TO_CONFIG[spec.datatype], spec.shape):
            own = f"{spec.datatype} {list(spec.shape)}" if spec is not None else f"one of {', '.join(known)}"
            raise LoadError(f"{path}: {field} {tensor.name!r}: expected {own}, or nothing: this backend has its own.")
