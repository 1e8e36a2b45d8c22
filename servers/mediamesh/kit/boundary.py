"""The one place that every call passes: a span, metrics, validated messages, and errors as statuses.

It is one interceptor and not four, as each costs a coroutine for every call. OpenTelemetry's own gRPC instrumentation
does not see ``abort_with_status`` and records no metrics (docs/decisions/0005-one-boundary.md).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Self

import grpc
import protovalidate
from grpc_status import rpc_status
from opentelemetry import context as otel_context
from opentelemetry import metrics, propagate, trace

from mediamesh.wire.errors import InvalidRequest, MeshError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    from google.protobuf.message import Message

    Context = grpc.aio.ServicerContext[Any, Any]
    Handler = grpc.RpcMethodHandler[Any, Any]

__all__ = ["Boundary", "checked", "time_left"]

_LOG = logging.getLogger(__name__)
_TRACER = trace.get_tracer("mediamesh.kit")
_METER = metrics.get_meter("mediamesh.kit")
# Rate, errors and duration of every RPC are all in this one histogram, by method and status.
_DURATION = _METER.create_histogram(
    "mediamesh_rpc_server_duration",
    unit="s",
    description="Duration of calls served.",
    explicit_bucket_boundaries_advisory=[
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60,
    ],
)  # fmt: skip
_IN_FLIGHT: Counter[str] = Counter()


def _in_flight(_options: metrics.CallbackOptions) -> list[metrics.Observation]:
    return [metrics.Observation(count, {"rpc_method": method}) for method, count in list(_IN_FLIGHT.items())]


_METER.create_observable_up_down_counter(
    "mediamesh_rpc_server_in_flight", [_in_flight], description="Calls being served."
)
_TRACE_HEADERS = frozenset(propagate.get_global_textmap().fields)
# Health is asked every second by every proxy, reflection by people: neither is work of the mesh.
_UNOBSERVED = ("/grpc.health.v1.", "/grpc.reflection.")


def time_left(context: Context) -> float | None:
    """Return the seconds until the caller's deadline; None when it set none."""
    left = context.time_remaining()
    # grpc.aio reports a deadline of centuries for calls that have none.
    return left if left is not None and left < 365 * 86400 else None


class Boundary(grpc.aio.ServerInterceptor):
    """Wraps the handler of every method once, whatever its shape."""

    def __init__(self) -> None:
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the wrapped handler of the method."""
        method = handler_call_details.method
        if known := self._wrapped.get(method):
            return known
        handler = await continuation(handler_call_details)
        if handler is None or method.startswith(_UNOBSERVED):
            return handler
        self._wrapped[method] = wrapped = _wrap(handler, method)
        return wrapped


def _wrap(handler: Handler, method: str) -> Handler:
    shape = ("stream" if handler.request_streaming else "unary") + (
        "_stream" if handler.response_streaming else "_unary"
    )
    behaviour = getattr(handler, shape)
    guard = _guard_stream if handler.response_streaming else _guard_unary
    make = getattr(grpc, f"{shape}_rpc_method_handler")
    accept: Callable[[Any], Any] = _checked_stream if handler.request_streaming else checked
    if handler.request_deserializer is None:
        accept = _unchecked
    wrapped: Handler = make(guard(behaviour, accept, method), handler.request_deserializer, handler.response_serializer)
    return wrapped


class _Observed:
    """One call, from its arrival to its end, as a span and as metrics."""

    def __init__(self, method: str, context: Context) -> None:
        self._method = method.removeprefix("/")
        self._code = grpc.StatusCode.OK
        self._context = context

    def __enter__(self) -> Self:
        headers = dict(self._context.invocation_metadata() or ())
        parent = None if _TRACE_HEADERS.isdisjoint(headers) else propagate.extract(headers)
        self._span = _TRACER.start_span(self._method, context=parent, kind=trace.SpanKind.SERVER)
        self._token = otel_context.attach(trace.set_span_in_context(self._span, parent))
        self._begin = time.perf_counter()
        _IN_FLIGHT[self._method] += 1
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            self._code = grpc.StatusCode.CANCELLED
        code = self._code.name
        _IN_FLIGHT[self._method] -= 1
        _DURATION.record(time.perf_counter() - self._begin, {"rpc_method": self._method, "status": code})
        if self._span.is_recording():
            self._span.set_attribute("rpc.system", "grpc")
            self._span.set_attribute("rpc.grpc.status_code", self._code.value[0])
            if self._code is not grpc.StatusCode.OK:
                self._span.set_status(trace.StatusCode.ERROR, code)
        self._span.end()
        try:
            otel_context.detach(self._token)
        except ValueError:  # pragma: no cover - a generator closed from another task
            _LOG.debug("the span of %s ended in another context", self._method)

    def leave(self) -> None:
        """Note that the caller has left; there is nobody to tell."""
        self._code = grpc.StatusCode.CANCELLED

    async def fail(self, error: Exception) -> None:
        """End the call with the status that the error spells; never returns normally."""
        if not isinstance(error, MeshError):
            _LOG.exception("/%s failed", self._method, exc_info=error)
            trace_id = trace.format_trace_id(self._span.get_span_context().trace_id)
            error = MeshError(
                f"The server failed; its log has the cause under trace {trace_id}.",
                trace_id=trace_id,
            )
        self._code = error.code
        await self._context.abort_with_status(rpc_status.to_status(error.to_status()))


def _guard_unary(behaviour: Callable[[Any, Context], Awaitable[Any]], accept: Callable[[Any], Any], method: str) -> Any:
    async def guarded(request: Any, context: Context) -> Any:
        with _Observed(method, context) as call:
            try:
                return await behaviour(accept(request), context)
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001 - the boundary is where every error ends
                await call.fail(error)

    return guarded


def _guard_stream(
    behaviour: Callable[[Any, Context], AsyncGenerator[Any]],
    accept: Callable[[Any], Any],
    method: str,
) -> Any:
    # It writes and does not yield: a generator that a cancelled call leaves behind would be closed by the garbage
    # collector, in another task and another trace.
    async def guarded(request: Any, context: Context) -> None:
        with _Observed(method, context) as call:
            try:
                async with aclosing(behaviour(accept(request), context)) as responses:
                    async for response in responses:
                        await context.write(response)
            except grpc.aio.AbortError:
                raise
            except grpc.aio.InternalError:  # grpc could not write: the call is over, and its caller gone
                call.leave()
            except Exception as error:  # noqa: BLE001 - the boundary is where every error ends
                await call.fail(error)

    return guarded


def checked(request: Message) -> Message:
    """Return the message when it keeps the rules of its fields.

    Raises:
        InvalidRequest: it breaks some; names each field.
    """
    try:
        protovalidate.validate(request)
    except protovalidate.ValidationError as error:
        raise _invalid(error) from None
    return request


def _unchecked(request: Any) -> Any:
    # A method without a deserializer parses, and checks, for itself.
    return request


async def _checked_stream(requests: AsyncIterator[Message]) -> AsyncIterator[Message]:
    async for request in requests:
        yield checked(request)


def _invalid(error: protovalidate.ValidationError) -> InvalidRequest:
    return InvalidRequest.of_fields(
        (_path(violation.proto.field), violation.proto.message) for violation in error.violations
    )


def _path(field: Any) -> str:
    parts = []
    for element in field.elements if field is not None else ():
        subscript = element.subscript
        index = f"[{subscript.value!r}]" if subscript is not None else ""
        parts.append(element.field_name + index)
    return ".".join(parts)
