"""Traces of runs, for OpenTelemetry: one trace from a run's submission to its delivery, however long a person thinks.

A run keeps the trace that it belongs to: its caller's, or one of its own. So whichever process handles it next, minutes
or days later, goes on with the same trace, and a report needs to carry nothing. The root span is the run itself, and is
exported when the run is over; its id follows from the run's. Spans are drawn from times that are known: what an agent
does is drawn where its reports are taken. So agents export nothing, know no collector, and need no way to it.

Without an endpoint nothing of OpenTelemetry is loaded, and each span costs a comparison. With one, spans are exported
in batches by a thread of their own, as the standard ``OTEL_*`` variables say; what can't be exported is dropped, and
delays no run. Spans hold ids, names and words of this program: nothing that Terraform or people wrote.
"""

from __future__ import annotations

import atexit
import hashlib
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from workers.protocol.names import TRACEPARENT

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanContext

log = structlog.get_logger(__name__)

_SERVICE = "terraslot"
_LAST_SECONDS = 3.0  # a worker that is told to end has some more
_NOTHING: AbstractContextManager[None] = nullcontext()


class Traced(Protocol):
    """A run, as far as its trace is concerned. ``trace``: a traceparent, or None where it is not traced."""

    id: Any
    trace: Any

    @property
    def about(self) -> dict[str, Any]:
        """What is said of it in every line of the log, and in every span."""


def begin(endpoint: str) -> None:
    """Export spans from now on; nothing where no endpoint is configured."""
    if not endpoint:
        return
    try:
        exporter = _Exporter()
    except ImportError as error:
        log.warning("traces are not exported: install terraslot[traces]", endpoint=endpoint, error=str(error))
        return
    _exporters[:] = [exporter]
    log.info("traces are exported", endpoint=endpoint)


def end() -> None:
    """Export what is left, and nothing from now on."""
    while _exporters:
        _exporters.pop().end()


def new(caller: object) -> str | None:
    """Return the trace of a run that is about to be entered: its caller's, if that says a valid one, or a new one.

    None where nothing is exported, or this one is not to be: by the caller's word, or the sampler's.
    """
    for exporter in _exporters:
        return exporter.new(caller)
    return None


def span(name: str, *runs: Traced) -> AbstractContextManager[None]:
    """Return a block that is a span of each of these runs' traces, and failed where it raises."""
    if not _exporters:
        return _NOTHING
    return _block(name, runs)


@contextmanager
def _block(name: str, runs: Collection[Traced]) -> Iterator[None]:
    began, error = datetime.now(UTC), None
    try:
        yield
    except BaseException as raised:
        error = type(raised).__name__
        raise
    finally:
        for run in runs:
            draw(name, run, began, datetime.now(UTC), error=error)


def draw(
    name: str, run: Traced, began: datetime | None, ended: datetime, *, error: str | None = None, **about: Any
) -> None:
    """Add a span to a run's trace, of something that is over; nothing where it is not known when it ``began``.

    ``error``: a word of this program for why it failed.
    """
    if began is not None and run.trace is not None:
        for exporter in _exporters:
            exporter.draw(name, run, (began, ended), error, about)


def draw_run(run: Traced, began: datetime, ended: datetime, *, error: str | None = None, **about: Any) -> None:
    """Add the root span of a run that is over to its trace."""
    if run.trace is not None:
        for exporter in _exporters:
            exporter.draw("run", run, (began, ended), error, about, root=True)


class _Exporter:
    """Makes spans and exports them in batches. Raises :class:`ImportError` where OpenTelemetry is not installed."""

    def __init__(self) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        resource = Resource.create({"service.name": _SERVICE}).merge(OTELResourceDetector().detect())
        self.provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._exporter = OTLPSpanExporter()
        self._processor = BatchSpanProcessor(self._exporter)
        self.provider.add_span_processor(self._processor)
        atexit.register(end)

    def end(self) -> None:
        """Export what is left. A collector that does not answer by then is given up, and so are its spans."""
        given_up = threading.Timer(_LAST_SECONDS, self._exporter.shutdown)
        given_up.daemon = True
        given_up.start()
        self.provider.shutdown()
        given_up.cancel()

    def new(self, caller: object) -> str | None:
        from opentelemetry.sdk.trace.sampling import Decision  # noqa: PLC0415

        given = TRACEPARENT.fullmatch(caller) if isinstance(caller, str) else None
        trace_id, parent_id = (int(given[1], 16), int(given[2], 16)) if given else (0, 0)
        parent: Context | None = None
        if given and trace_id and parent_id:
            parent = _parent(_context(trace_id, parent_id, sampled=bool(int(given[3], 16) & 1)))
        else:
            trace_id, parent_id = self.provider.id_generator.generate_trace_id(), 0
        if self.provider.sampler.should_sample(parent, trace_id, "run").decision is not Decision.RECORD_AND_SAMPLE:
            return None
        return f"00-{trace_id:032x}-{parent_id:016x}-01"

    def draw(
        self,
        name: str,
        run: Traced,
        times: tuple[datetime, datetime],
        error: str | None,
        about: Mapping[str, Any],
        *,
        root: bool = False,
    ) -> None:
        from opentelemetry.sdk.trace import ReadableSpan  # noqa: PLC0415
        from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415

        trace_id, caller = int(run.trace[3:35], 16), int(run.trace[36:52], 16)
        own_id, parent_id = self.provider.id_generator.generate_span_id(), _root_id(run.id)
        if root:
            own_id, parent_id = parent_id, caller
        said = {name: value for name, value in {**run.about, **about}.items() if name != "trace_id"}
        self._processor.on_end(
            ReadableSpan(
                name,
                context=_context(trace_id, own_id),
                parent=_context(trace_id, parent_id) if parent_id else None,
                resource=self.provider.resource,
                attributes={f"{_SERVICE}.{name}": value for name, value in said.items() if value is not None},
                status=Status(StatusCode.ERROR, error) if error else Status(StatusCode.UNSET),
                start_time=_nanoseconds(times[0]),
                end_time=_nanoseconds(max(times)),
            )
        )


_exporters: list[_Exporter] = []


def _context(trace_id: int, span_id: int, *, sampled: bool = True) -> SpanContext:
    from opentelemetry.trace import SpanContext, TraceFlags  # noqa: PLC0415

    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(int(sampled)))


def _parent(context: SpanContext) -> Context:
    from opentelemetry.trace import NonRecordingSpan, set_span_in_context  # noqa: PLC0415

    return set_span_in_context(NonRecordingSpan(context))


def _root_id(run: str) -> int:
    """Return the id of a run's root span: the same in every process, and unlike any other's."""
    return int.from_bytes(hashlib.sha256(run.encode()).digest()[:8], "big") or 1


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000) * 1_000
