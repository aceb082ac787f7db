"""Whether traces are wanted, and which trace a request belongs to; without OpenTelemetry."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path

import pytest

from launcher.settings import Settings
from launcher.traceparent import answering_in, current_traceparent

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-11111111111111111111111111111111-2222222222222222-01"


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "scores"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://host:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://host:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://host:4318", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://host:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_there_are_traces_where_there_is_somewhere_to_send_them_to(environment: dict[str, str], wanted: bool) -> None:
    assert Settings.from_environment(environment).traced is wanted


# FastAPI imports the interfaces of OpenTelemetry, which do nothing by themselves.
_WITHOUT = """
import sys, threading
from pathlib import Path
import launcher.serve
from launcher.api.app import make_app
from launcher.home import Home
from launcher.service import Service
from launcher.settings import Settings
_OURS = ("launcher.tracing", "opentelemetry.sdk", "opentelemetry.exporter", "google.protobuf", "requests")
service = Service(Settings.from_environment(), Home(Path(sys.argv[1])), Path(sys.argv[1]), keyless=True, preload=())
make_app(service)
print(service.tracing, sorted(name for name in sys.modules if name.startswith(_OURS)))
print(sorted(thread.name for thread in threading.enumerate() if "Otel" in thread.name))
"""


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [("", "None []\n[]\n"), ("http://127.0.0.1:9", "opentelemetry.sdk.trace")],
    ids=["without", "with"],
)
def test_without_an_endpoint_a_service_neither_imports_nor_starts_anything_for_traces(
    tmp_path: Path, endpoint: str, said: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    assert said in done.stdout


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (TRACE, TRACE),
        (None, None),
        ("", None),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", None),
        (TRACE.upper(), None),
        (f"{TRACE}\n", None),
        ("ff" + TRACE[2:], None),
        ("00-" + "0" * 32 + TRACE[35:], None),
        (TRACE[:36] + "0" * 16 + "-01", None),
        ("x" * 100_000, None),
    ],
    ids=["one", "absent", "empty", "short", "capitals", "a line more", "version", "no trace", "no span", "long"],
)
def test_without_tracing_the_trace_of_a_request_is_what_it_gave(given: str | None, taken: str | None) -> None:
    assert current_traceparent(given) == taken


def test_in_a_span_the_trace_is_that_of_the_span_also_in_threads_that_work_for_it() -> None:
    with ThreadPoolExecutor(1) as threads:
        with answering_in(TRACE):
            here = current_traceparent(OTHER)
            there = threads.submit(copy_context().run, current_traceparent, OTHER).result()
        after = current_traceparent(OTHER)

    assert (here, there, after) == (TRACE, TRACE, OTHER)
