"""OpenTelemetry's SDK, in memory."""

from __future__ import annotations

from typing import Any
from typing import Optional

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
    InMemorySpanExporter,
)

PREFIX = "db.client.connection."


class Telemetry:
    """What an SDK has been told."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader])
        self.spans = InMemorySpanExporter()
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self.spans))
        self.tracer = tracers.get_tracer("test")

    def metrics(self) -> dict[str, Any]:
        """All metrics, by their names without the prefix."""
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        found = [
            metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]
        names = [metric.name.removeprefix(PREFIX) for metric in found]
        assert len(set(names)) == len(names), "one is there twice"
        return dict(zip(names, found))

    def points(self, name: str, pool: Optional[str] = None) -> list[Any]:
        metric = self.metrics().get(name)
        return [
            point
            for point in (metric.data.data_points if metric else [])
            if pool in (None, point.attributes[PREFIX + "pool.name"])
        ]

    def value(self, name: str, state: Optional[str] = None) -> Any:
        """The value of the one point that there is."""
        (point,) = (
            point
            for point in self.points(name)
            if point.attributes.get(PREFIX + "state") == state
        )
        return getattr(point, "value", point)

    def span_events(self) -> list[Any]:
        return [
            event
            for span in self.spans.get_finished_spans()
            for event in span.events
        ]
