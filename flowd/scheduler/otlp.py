"""Send spans to a collector by OpenTelemetry's own SDK, in a thread that nobody waits for.

The only file that knows the SDK, and imported only where a collector is named: it is an extra.
Whatever its environment variables say of headers, certificates, compression, resources and
samplers counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import threading
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.context import Context as Surroundings
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags

from flowd import __version__
from flowd.redaction import REDACTOR
from flowd.scheduler.duty import DutyFailed
from flowd.scheduler.spans import Context, Span
from flowd.scheduler.traces import SpansRefused

TIMEOUT_S: Final = 10.0
# The SDK gives each read of an answer its time anew: who drips is left alone then.
PATIENCE_S: Final = 12.0
_PATH: Final = "/v1/traces"
_NS_PER_MS: Final = 1_000_000
_REFUSAL_CHARS_MAX: Final = 300
# What a collector answers to what it will never take, and what may work another time.
_NEVER: Final = ("400", "413", "422")
_STATUS = re.compile(r"code: (\d{3}, reason: .{0,200})", re.DOTALL)
_SYSTEM_ERROR = re.compile(r"\[Errno -?\d+\] ([\w ]+)")


def traces_url(endpoint: str) -> str:
    """As OpenTelemetry has it: the endpoint is a base, unless it is the whole address."""
    parts = urlsplit(endpoint)
    path = parts.path.rstrip("/")
    return parts._replace(path=path if path.endswith(_PATH) else path + _PATH).geturl()


class Sender:
    """One call at a time: while the one before has not come back, the next fails at once."""

    def __init__(self, endpoint: str) -> None:
        self._place = urlsplit(endpoint).netloc.rpartition("@")[2]
        self._ids = _GivenIds()
        self._ended = _Ended()
        self._provider = TracerProvider(
            resource=_resource(), id_generator=self._ids, shutdown_on_exit=False
        )
        self._provider.add_span_processor(self._ended)
        self._tracer = self._provider.get_tracer("flowd", __version__)
        self._exporter = OTLPSpanExporter(traces_url(endpoint), timeout=TIMEOUT_S)
        self._refusals = _LastRefusal()
        self._under_way: threading.Thread | None = None

    async def send(self, spans: Sequence[Span]) -> None:
        """Raises DutyFailed where the collector has not taken them."""
        if self._under_way is not None and self._under_way.is_alive():
            raise DutyFailed(f"the collector at {self._place} does not answer")
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._under_way = threading.Thread(
            target=self._send, args=(spans, answer), name="otlp", daemon=True
        )
        self._under_way.start()
        try:
            async with asyncio.timeout(PATIENCE_S):
                refusal = await answer
        except TimeoutError:
            raise DutyFailed(f"the collector at {self._place} does not answer") from None
        if refusal:
            kind = SpansRefused if refusal.startswith(_NEVER) else DutyFailed
            raise kind(f"the collector at {self._place} takes no traces: {refusal}")

    def close(self) -> None:
        """Break off what is under way."""
        self._refusals.close()
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    # What follows runs in the thread.

    def _send(self, spans: Sequence[Span], answer: asyncio.Future[str]) -> None:
        try:
            refusal = self._export(spans)
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises, the answer is awaited
            refusal = f"{type(error).__name__}: {error}"
        # Nobody may wait any more, nor the loop run.
        with contextlib.suppress(RuntimeError):
            answer.get_loop().call_soon_threadsafe(_settle, answer, refusal)

    def _export(self, spans: Sequence[Span]) -> str:
        """Why it was refused, or nothing."""
        for span in spans:
            self._record(span)
        recorded = self._ended.take()
        self._refusals.text = ""
        if not recorded or self._exporter.export(recorded) is SpanExportResult.SUCCESS:
            return ""
        return self._refusals.text or "nobody says why"

    def _record(self, span: Span) -> None:
        self._ids.context = span.context
        around = Surroundings()
        if span.parent is not None:
            around = trace.set_span_in_context(
                NonRecordingSpan(self._shown(span, span.parent)), around
            )
        one = self._tracer.start_span(
            span.name,
            around,
            attributes=dict(span.attributes),
            start_time=span.start_ms * _NS_PER_MS,
        )
        if span.error is not None:
            one.set_status(Status(StatusCode.ERROR, REDACTOR.text(span.error)))
        one.end(span.end_ms * _NS_PER_MS)

    def _shown(self, span: Span, parent: Context) -> SpanContext:
        """Where no caller has said whether his trace is recorded, the sampler says it by its id."""
        is_sampled = parent.is_sampled
        if is_sampled is None:
            sampled = self._provider.sampler.should_sample(None, parent.trace_id, span.name)
            is_sampled = sampled.decision is Decision.RECORD_AND_SAMPLE
        flags = TraceFlags(TraceFlags.SAMPLED if is_sampled else TraceFlags.DEFAULT)
        return SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=flags)


def _resource() -> Resource:
    """What the environment says of it, and a name of our own where it says none."""
    found = Resource.create({SERVICE_VERSION: __version__})
    if str(found.attributes[SERVICE_NAME]).startswith("unknown_service"):
        return found.merge(Resource({SERVICE_NAME: "flowd"}))
    return found


def _settle(answer: asyncio.Future[str], refusal: str) -> None:
    if not answer.done():
        answer.set_result(refusal)


class _GivenIds(IdGenerator):
    context = Context(1, 1)

    def generate_trace_id(self) -> int:
        return self.context.trace_id

    def generate_span_id(self) -> int:
        return self.context.span_id


class _Ended(SpanProcessor):
    """Keeps the spans that are recorded: a sampler may leave some out."""

    def __init__(self) -> None:
        self._spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self._spans.append(span)

    def take(self) -> list[ReadableSpan]:
        taken, self._spans = self._spans, []
        return taken


class _LastRefusal(logging.Handler):
    """What the exporter says in its log, and nowhere else: why it was refused."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self._logger = logging.getLogger("opentelemetry.exporter")
        self._logger.propagate = False
        self._logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        # At the end of its own attempts it says no more than that; the first says why.
        if "max retries" in text:
            self.text = self.text or "it does not answer in time"
            return
        found = _STATUS.search(text) or _SYSTEM_ERROR.search(text)
        self.text = REDACTOR.text(found[1] if found else text[:_REFUSAL_CHARS_MAX])

    def close(self) -> None:
        self._logger.removeHandler(self)
        super().close()
