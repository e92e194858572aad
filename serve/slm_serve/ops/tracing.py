"""OpenTelemetry traces, where an exporter is configured; otherwise every call here does nothing.

Spans hold times, routes, counts and ids, and nothing of what was said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from slm_plugin.errors import ConfigError, Problem
from slm_serve.context import RequestContext

SERVICE_NAME = "slm_serve"


class Span:
    """A span, or nothing.

    Args:
        real: OpenTelemetry's span; None does nothing.
    """

    def __init__(self, real: Any = None) -> None:
        self._real = real

    def set(self, **values: str | int | float | None) -> None:
        """Put values on the span under ``slm.NAME``, those that are not None."""
        if self._real is not None:
            for name, value in values.items():
                if value is not None:
                    self._real.set_attribute(f"slm.{name}", value)

    def event(self, name: str) -> None:
        """Mark a moment."""
        if self._real is not None:
            self._real.add_event(name)

    def end_with(self, route: str, status: int, context: RequestContext) -> None:
        """Say how a request ended."""
        if self._real is None:
            return
        self._real.update_name(route)
        self._real.set_attribute("http.route", route)
        self._real.set_attribute("http.response.status_code", status)
        self.set(request_id=context.id, error=context.error, cancel=context.cancel, replica=context.replica)


class Tracing:
    """Opens spans on a tracer of its own, so that nothing global is set.

    Args:
        provider: OpenTelemetry's tracer provider; None traces nothing.
    """

    def __init__(self, provider: Any = None) -> None:
        self._provider = provider
        self._tracer = None if provider is None else provider.get_tracer(SERVICE_NAME)

    @classmethod
    def to(cls, endpoint: str) -> Tracing:
        """Return tracing that sends to an OTLP collector over HTTP.

        Args:
            endpoint: Such as ``http://localhost:4318/v1/traces``.

        Raises:
            ConfigError: OpenTelemetry is not installed.
        """
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError:
            text = "OpenTelemetry is not installed: pip install 'slm-plugin[telemetry]'."
            raise ConfigError([Problem("--otlp-endpoint", text)]) from None
        provider = TracerProvider(resource=Resource.create({"service.name": SERVICE_NAME}))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        return cls(provider)

    @contextmanager
    def request(self, headers: Mapping[str, str], kind: str) -> Iterator[Span]:
        """Open the span of a request, under the trace that its ``traceparent`` header names, if any."""
        if self._tracer is None:
            yield Span()
            return
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        above = TraceContextTextMapPropagator().extract(dict(headers))
        # what an exception says may hold what a client said
        with self._tracer.start_as_current_span(
            kind, above, SpanKind.SERVER, record_exception=False, set_status_on_exception=False
        ) as span:
            yield Span(span)

    @contextmanager
    def part(self, name: str) -> Iterator[Span]:
        """Open the span of a part of the current request."""
        if self._tracer is None:
            yield Span()
            return
        span = self._tracer.start_span(name)
        try:
            yield Span(span)
        finally:
            span.end()

    def close(self) -> None:
        """Send what is left."""
        if self._provider is not None:
            self._provider.shutdown()
