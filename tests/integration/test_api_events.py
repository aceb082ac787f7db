"""A job is followed while it goes on."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from launcher.api import events
from launcher.api.models import JobAnswer, StateEvent
from launcher.state.job import Live
from tests.api import BATCH, PATIENCE_S, ROWS, Api, problem, serving, wait_for
from transforms.counts import Counts


class Event(NamedTuple):
    id: str | None
    event: str
    data: dict[str, Any]


def read(lines: Iterator[str]) -> Iterator[Event]:
    """The events of a stream, as a browser would see them."""
    fields: dict[str, str] = {}
    for line in lines:
        if not line and fields:
            yield Event(fields.get("id"), fields["event"], json.loads(fields["data"]))
            fields = {}
        elif line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value


@pytest.fixture
def client(api: Api, tenant: str) -> httpx.Client:
    client = api.client(tenant)
    api.stock(client)
    return client


def test_a_job_that_is_over_is_told_from_its_beginning(api: Api, client: httpx.Client) -> None:
    job_id = api.submit(client)
    api.run(job_id, ROWS)
    api.move(job_id, "completing", "completed", outcome="clean", counts=Counts(ROWS))

    with client.stream("GET", f"{BATCH}/{job_id}/events") as stream:
        told = list(read(stream.iter_lines()))

    assert stream.headers["Content-Type"].startswith("text/event-stream")
    assert stream.headers["Cache-Control"] == "no-store"
    states = [StateEvent.model_validate_json(json.dumps(each.data)) for each in told if each.event == "state"]
    assert [each.status for each in states] == ["submitted", "preparing", "running", "completing", "completed"]
    assert [each.previous_status for each in states] == [None, "submitted", "preparing", "running", "completing"]
    assert [each.id for each in told] == ["1", "2", "3", "4", "5", None]
    last = JobAnswer.model_validate_json(json.dumps(told[-1].data))
    assert (told[-1].event, last.status, last.progress.percentage) == ("progress", "completed", 100)


def test_a_job_is_followed_while_it_is_moved(api: Api, client: httpx.Client) -> None:
    job_id = api.submit(client)

    with client.stream("GET", f"{BATCH}/{job_id}/events") as stream:
        told = read(stream.iter_lines())
        first = [next(told), next(told)]
        api.move(job_id, "preparing", "running")
        second = [next(told) for _ in range(3)]
        began = time.monotonic()
        api.service.store.beat(job_id, 1, 60, live=Live(scored=10))
        third = next(told)
        waited_s = time.monotonic() - began
        api.move(job_id, "cancelled", counts=Counts(10))
        rest = list(told)

    assert [(each.event, each.data["status"]) for each in first] == [("state", "submitted"), ("progress", "submitted")]
    assert [each.data["status"] for each in second] == ["preparing", "running", "running"]
    assert (third.event, third.data["progress"]["processed_rows"]) == ("progress", 10)
    assert waited_s < 1
    assert [(each.event, each.id, each.data["status"]) for each in rest] == [
        ("state", "4", "cancelled"),
        ("progress", None, "cancelled"),
    ]


def test_who_was_cut_off_goes_on_where_they_were(api: Api, client: httpx.Client) -> None:
    job_id = api.submit(client)
    api.move(job_id, "preparing", "running", "cancelled")

    with client.stream("GET", f"{BATCH}/{job_id}/events", headers={"Last-Event-ID": "2"}) as stream:
        told = list(read(stream.iter_lines()))

    assert [each.id for each in told if each.event == "state"] == ["3", "4"]
    problem(client.get(f"{BATCH}/{job_id}/events", headers={"Last-Event-ID": "x"}), 422, "invalid-request")


def test_a_job_that_is_tried_again_goes_on(api: Api, client: httpx.Client) -> None:
    job_id = api.submit(client)
    api.move(job_id, "preparing", "failed", error="no")
    client.post(f"{BATCH}/{job_id}/retry")

    with client.stream("GET", f"{BATCH}/{job_id}/events") as stream:
        told = read(stream.iter_lines())
        seen = [next(told).data["status"] for _ in range(4)]
        api.move(job_id, "cancelled")
        seen += [each.data["status"] for each in told if each.event == "state"]

    assert seen == ["submitted", "preparing", "failed", "submitted", "cancelled"]


def test_silence_is_filled_with_comments(api: Api, client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_QUIET_S", 0.2)
    job_id = api.submit(client)

    with client.stream("GET", f"{BATCH}/{job_id}/events") as stream:
        comment = next(line for line in stream.iter_lines() if line.startswith(":"))
        api.move(job_id, "cancelled")

    assert comment == ": still here"


def test_many_streams_leave_threads_for_others(api: Api, client: httpx.Client) -> None:
    job_ids = [api.submit(client) for _ in range(3)]
    ended: list[str] = []
    with (
        ExitStack() as stack,
        httpx.Client(
            base_url=api.url,
            headers=client.headers,
            timeout=PATIENCE_S,
            limits=httpx.Limits(max_connections=None),
        ) as many,
    ):
        # More than the server has threads.
        streams = [stack.enter_context(many.stream("GET", f"{BATCH}/{job_ids[n % 3]}/events")) for n in range(90)]
        took = []
        for _ in range(20):
            began = time.monotonic()
            assert client.get(f"{BATCH}/{job_ids[0]}").status_code == 200
            took.append(time.monotonic() - began)
        for job_id in job_ids:
            api.move(job_id, "cancelled")

        def follow(stream: httpx.Response) -> str:
            return [each.data["status"] for each in read(stream.iter_lines())][-1]

        with ThreadPoolExecutor(40) as threads:
            for done in as_completed([threads.submit(follow, stream) for stream in streams]):
                ended.append(done.result())

    assert sorted(took)[10] < 1
    assert ended == ["cancelled"] * 90


def test_streams_end_with_the_service(tmp_path: Path) -> None:
    with serving(tmp_path, keyless=True) as api:
        client = api.client()
        api.stock(client)
        job_id = api.submit(client)
        with client.stream("GET", f"{BATCH}/{job_id}/events") as stream:
            told: list[Event] = []
            over = threading.Event()

            def follow() -> None:
                told.extend(read(stream.iter_lines()))
                over.set()

            threading.Thread(target=follow).start()
            wait_for(lambda: bool(told))
            api.app.state.closing.set()

            assert over.wait(PATIENCE_S)
    assert told[-1].data["status"] == "submitted"


def test_a_job_that_is_deleted_ends_its_stream(api: Api, client: httpx.Client) -> None:
    job_id = api.submit(client)

    with client.stream("GET", f"{BATCH}/{job_id}/events") as stream:
        told = read(stream.iter_lines())
        next(told)
        api.service.store.delete(job_id, ["submitted"])
        rest = list(told)

    assert all(each.data["status"] == "submitted" for each in rest)


def ends(stream: httpx.Response) -> bool:
    """Whether a stream that is told of nothing comes to its end soon."""
    deadline = time.monotonic() + PATIENCE_S / 2
    return all(time.monotonic() < deadline for _ in stream.iter_lines())


def test_a_key_that_is_revoked_ends_its_streams(api: Api, tenant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Or nothing would come of a stream that goes on.
    monkeypatch.setattr(events, "_QUIET_S", 0.2)
    key, token = api.service.keys.create(tenant, "submitter")
    _, other = api.service.keys.create(tenant, "viewer")
    with (
        httpx.Client(base_url=api.url, headers={"Authorization": f"Bearer {token}"}, timeout=PATIENCE_S) as client,
        httpx.Client(base_url=api.url, headers={"Authorization": f"Bearer {other}"}, timeout=PATIENCE_S) as stays,
    ):
        api.stock(client)
        job_id = api.submit(client)
        with (
            client.stream("GET", f"{BATCH}/{job_id}/events") as stream,
            stays.stream("GET", f"{BATCH}/{job_id}/events") as going_on,
        ):
            api.service.keys.revoke(key.id)

            assert ends(stream)
            api.move(job_id, "cancelled")
            assert list(read(going_on.iter_lines()))[-1].data["status"] == "cancelled"


def test_a_service_that_gets_its_first_key_ends_the_streams_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_QUIET_S", 0.2)
    with serving(tmp_path, keyless=True) as api:
        client = api.client()
        api.stock(client)
        job_id = api.submit(client)
        with client.stream("GET", f"{BATCH}/{job_id}/events") as stream:
            api.service.keys.create("acme", "viewer")

            assert ends(stream)


def test_no_tenant_has_more_streams_than_its_share(
    api: Api, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_MOST_OF_TENANT", 2)
    job_id = api.submit(client)
    path = f"{BATCH}/{job_id}/events"
    stranger = api.client(f"{job_id}-other")
    api.stock(stranger)
    others = api.submit(stranger)

    with client.stream("GET", path), client.stream("GET", path):
        refused = client.get(path)
        with stranger.stream("GET", f"{BATCH}/{others}/events") as stream:
            assert stream.status_code == 200
    # One who has left makes room.
    api.move(job_id, "cancelled")
    wait_for(lambda: client.get(path).status_code == 200)

    told = problem(refused, 429, "too-many-requests")
    assert told.detail == "the tenant follows 2 jobs already; end some, or ask now and then"
    assert refused.headers["Retry-After"] == "5"


def test_all_tenants_together_leave_connections_to_others(
    api: Api, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_MOST_OF_ALL", 0)
    job_id = api.submit(client)

    told = problem(client.get(f"{BATCH}/{job_id}/events"), 503, "overloaded")

    assert told.detail == "0 jobs are followed already; ask now and then where this one stands"
