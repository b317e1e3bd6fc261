"""OpenTelemetry's and Sentry's instrumentations, both at once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.frameworks.serving import environment
from tests.lab.scripts import run_script
from tests.lab.waiting import eventually

WATCHED = """
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
import json

from opentelemetry import metrics, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
import sentry_sdk
from tests.integrations.telemetry import Telemetry

seen = Telemetry()
metrics.set_meter_provider(seen.provider)
spans = TracerProvider()
spans.add_span_processor(SimpleSpanProcessor(seen.spans))
trace.set_tracer_provider(spans)

import telemetry

class Sink(sentry_sdk.transport.Transport):
    transactions = []

    def capture_envelope(self, envelope):
        event = envelope.get_transaction_event()
        if event:
            self.transactions.append([span["op"] for span in event["spans"]])

sentry_sdk.get_client().transport = Sink()

def states(name):
    points = seen.metrics()[name].data.data_points
    return {
        value: point.value
        for point in points
        for key, value in point.attributes.items()
        if key.endswith("state")
    }

with telemetry.engine.pool:
    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(telemetry.double, range(100)))
    now = states("count")
print(json.dumps({
    "answers": answers,
    "stats": telemetry.engine.pool.stats().as_dict(),
    "ours": now,
    "theirs": states("db.client.connections.usage"),
    "spans": Counter(span.name for span in seen.spans.get_finished_spans()),
    "transactions": Sink.transactions,
}))
"""


@pytest.mark.slow
def test_both_instrumentations_see_every_statement_and_connection(
    postgresql: Any,
) -> None:
    postgresql.terminate()
    ended = run_script(
        WATCHED,
        **environment(postgresql, "postgresql+psycopg"),
        SENTRY_DSN="http://key@127.0.0.1:9/1",
    )
    assert ended.status == 0, ended.stderr
    seen = json.loads(ended.stdout)
    assert seen["answers"] == [2 * number for number in range(100)]
    stats = seen["stats"]
    assert stats["requests_num"] == 100
    assert stats["connections_num"] <= 5
    assert stats["requests_errors"] == stats["reclaimed"] == 0
    assert seen["ours"] == {"idle": stats["connections_num"], "used": 0}
    # its counters are right again when all connections are closed
    assert seen["theirs"] == {"idle": 0, "used": 0}
    assert seen["spans"] == {"connect": 100, "SELECT test": 100}
    assert seen["transactions"] == [["db"]] * 100
    eventually(lambda: not postgresql.sessions(), message="none is left")
