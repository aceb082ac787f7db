"""The postman: webhooks are delivered, again and again, until they are taken or given up."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from launcher.loops.postman import Postman
from launcher.reach.egress import Egress
from launcher.state.deliveries import Deliveries
from launcher.state.job import Webhook
from launcher.webhooks import MAX_TRIES, verify
from tests.contract.job_store import T0
from tests.unit.launcher_parts import Parts, parts
from tests.unit.playing import Reply, Stage, playing

SECRET = "hush-hush-hush"


@dataclass
class Post:
    parts: Parts
    stage: Stage
    deliveries: Deliveries

    def postman(self, allowed: str = "127.0.0.1") -> Postman:
        return Postman(self.deliveries, Egress.read(allowed), "/api/v1/inference/batch")

    def add(self, job_id: str = "batch-1", path: str = "/hook", secret: str | None = SECRET) -> None:
        webhook = Webhook(self.stage.url + path, ("submitted",))
        self.parts.add(job_id, secret=secret, tenant="acme", webhook=webhook)

    def left(self, job_id: str = "batch-1") -> float | None:
        """Seconds until it is sent again."""
        (delivery,) = self.deliveries.of_job(job_id)
        return None if delivery.next_at is None else (delivery.next_at - self.parts.clock.now).total_seconds()

    def error(self, job_id: str = "batch-1") -> str | None:
        return self.deliveries.of_job(job_id)[0].last_error


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    with parts(tmp_path) as made, playing() as stage:
        yield Post(made, stage, Deliveries(made.database))


def test_an_event_is_delivered_once_and_signed(post: Post) -> None:
    post.stage.on("POST", "/hook", Reply(204))
    post.add()
    postman = post.postman()

    assert postman.tick() == 1
    assert postman.tick() == 0
    (asked,) = post.stage.asked
    (delivery,) = post.deliveries.of_job("batch-1")
    assert (delivery.delivered_at, delivery.next_at, delivery.tries) == (T0, None, 1)
    assert asked.body["type"] == "com.penstock.job.submitted"
    assert (asked.body["source"], asked.body["subject"]) == ("/api/v1/inference/batch", "batch-1")
    assert asked.body["data"]["status"] == "submitted"
    assert asked.headers["webhook-id"] == delivery.id
    assert asked.headers["webhook-signature"].startswith("v1,")


def test_the_receiver_can_verify_it(post: Post) -> None:
    bodies: list[tuple[dict[str, str], dict[str, object]]] = []
    post.stage.on("POST", "/hook", lambda asked: bodies.append((asked.headers, asked.body)) or Reply(200))
    post.add()
    post.postman().tick()
    ((headers, body),) = bodies
    written = json.dumps(body, separators=(",", ":")).encode()

    assert verify(SECRET, headers, written, datetime.now(UTC))
    assert not verify("another", headers, written, datetime.now(UTC))


def test_without_a_secret_there_is_no_signature(post: Post) -> None:
    post.stage.on("POST", "/hook", Reply(200))
    post.add(secret=None)
    post.postman().tick()

    assert "webhook-signature" not in post.stage.asked[0].headers


def test_who_fails_is_asked_again_under_the_same_id(post: Post, caplog: pytest.LogCaptureFixture) -> None:
    post.stage.on("POST", "/hook", Reply(503), Reply(200))
    post.add()
    postman = post.postman()
    with caplog.at_level(logging.INFO):
        postman.tick()
    waits_s = post.left()
    assert waits_s is not None
    assert 5 <= waits_s <= 10
    assert post.error() == "127.0.0.1 answered 503"
    assert postman.tick() == 0
    post.parts.clock.advance(waits_s)
    postman.tick()
    first, second = post.stage.asked

    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert post.deliveries.of_job("batch-1")[0].delivered_at == post.parts.clock.now
    assert post.error() is None
    assert caplog.messages == [f"webhook of batch-1: 127.0.0.1 answered 503; again in {waits_s:.0f} s"]


def test_after_so_many_tries_it_is_given_up(post: Post, caplog: pytest.LogCaptureFixture) -> None:
    post.stage.on("POST", "/hook", Reply(500))
    post.add()
    postman = post.postman()
    waits: list[float] = []
    while (left := post.left()) is not None:
        waits.append(left)
        post.parts.clock.advance(left)
        assert postman.tick() == 1

    assert len(post.stage.asked) == MAX_TRIES == 12
    # Doubled from 5 s on, and drawn up to twice as long.
    assert [5 * 2**n <= wait <= 10 * 2**n for n, wait in enumerate(waits[1:9])] == [True] * 8
    assert caplog.messages == ["webhook of batch-1: 127.0.0.1 answered 500; given up"]


@pytest.mark.parametrize(
    ("reply", "again"),
    [(Reply(404), False), (Reply(410), False), (Reply(429), True), (Reply(302), True), (Reply(drop=True), True)],
    ids=["404", "410", "429", "redirect", "cut off"],
)
def test_what_will_be_answered_the_same_is_not_asked_again(post: Post, reply: Reply, again: bool) -> None:
    post.stage.on("POST", "/hook", reply)
    post.add()
    post.postman().tick()

    assert (post.left() is not None) is again


def test_an_address_that_is_not_allowed_any_more_is_not_asked(post: Post) -> None:
    post.stage.on("POST", "/hook", Reply(200))
    post.add()
    post.postman(allowed="").tick()

    assert post.stage.asked == []
    assert post.left() is None
    assert post.error() == (
        "host '127.0.0.1' leads to this machine; name another host, or have it allowed by PENSTOCK_ALLOWED_HOSTS"
    )


def test_a_secret_that_cannot_sign_is_not_tried_for_hours(post: Post) -> None:
    post.stage.on("POST", "/hook", Reply(200))
    post.add(secret="whsec_not base64")
    post.postman().tick()

    assert post.stage.asked == []
    assert post.left() is None


def test_neither_the_secret_nor_the_path_is_ever_logged(post: Post, caplog: pytest.LogCaptureFixture) -> None:
    post.stage.on("POST", "/t0ken", Reply(500), Reply(404))
    post.add(path="/t0ken")
    post.add("batch-2", secret=f"whsec_{SECRET}!")
    postman = post.postman()
    with caplog.at_level(logging.DEBUG, "launcher"):
        postman.tick()
        post.parts.clock.advance(60)
        postman.tick()
    told = caplog.text + repr([post.deliveries.of_job(job_id)[0].last_error for job_id in ("batch-1", "batch-2")])

    assert len(caplog.messages) == 3
    assert SECRET not in told
    assert "t0ken" not in told
    assert {(record.job_id, record.tenant) for record in caplog.records if record.name == "launcher.loops.postman"} == {  # type: ignore[attr-defined]
        ("batch-1", "acme"),
        ("batch-2", "acme"),
    }


def test_one_that_fails_holds_up_none_of_the_others(post: Post) -> None:
    post.stage.on("POST", "/bad", Reply(drop=True))
    post.stage.on("POST", "/hook", Reply(200))
    post.add("batch-1", path="/bad")
    for n in range(2, 8):
        post.add(f"batch-{n}")
    post.postman().tick()

    assert post.left("batch-1") is not None
    assert all(post.deliveries.of_job(f"batch-{n}")[0].delivered_at for n in range(2, 8))


def test_two_postmen_deliver_each_event_once(post: Post) -> None:
    post.stage.on("POST", "/hook", Reply(200))
    for n in range(10):
        post.add(f"batch-{n}")
    one, other = post.postman(), post.postman()
    delivered = [postman.tick() for postman in (one, other, one, other)]

    assert sum(delivered) == 10
    assert len({asked.headers["webhook-id"] for asked in post.stage.asked}) == len(post.stage.asked) == 10


def test_what_a_postman_has_taken_and_not_told_of_is_taken_again(post: Post) -> None:
    post.stage.on("POST", "/hook", Reply(200))
    post.add()
    # It was killed.
    post.deliveries.claim(1, 30.0)
    assert post.postman().tick() == 0
    post.parts.clock.now += timedelta(seconds=31)

    assert post.postman().tick() == 1


def test_a_postman_that_is_closed_delivers_nothing_more(post: Post) -> None:
    post.stage.on("POST", "/hook", Reply(200))
    postman = post.postman()
    postman.close()
    post.add()

    with pytest.raises(RuntimeError):
        postman.tick()
    assert post.stage.asked == []
