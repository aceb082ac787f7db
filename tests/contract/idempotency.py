"""What idempotency keys must do, wherever they are kept."""

import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from launcher.errors import KeyBusy, KeyReused
from launcher.state.database import Database
from launcher.state.idempotency import Answer, Idempotency, Turn
from tests.contract.job_store import Clock


def turn(kept: Idempotency) -> Turn:
    """What whoever is to answer acme's request is given."""
    begun = kept.begin("acme", "k", "hash", 30)
    assert isinstance(begun, Turn)
    return begun


class IdempotencyContract:
    """Mix with one of `tests.contract.databases`."""

    @pytest.fixture
    def kept(self, open_database: Callable[[], Database]) -> Idempotency:
        return Idempotency(open_database())

    def test_a_request_that_is_repeated_is_answered_the_same(self, kept: Idempotency, clock: Clock) -> None:
        kept.finish("acme", "k", turn(kept), 202, '{"job_id": "batch-1", "größe": 1}')
        clock.advance(3600)

        assert kept.begin("acme", "k", "hash", 30) == Answer(202, '{"job_id": "batch-1", "größe": 1}')
        assert kept.begin("acme", "k", "hash", 30) == Answer(202, '{"job_id": "batch-1", "größe": 1}')

    def test_another_request_with_the_key_is_refused_before_and_after_the_answer(self, kept: Idempotency) -> None:
        mine = turn(kept)
        reused = "the Idempotency-Key 'k' came with another request before; send a new request with a new key"

        with pytest.raises(KeyReused, match=reused):
            kept.begin("acme", "k", "other", 30)
        kept.finish("acme", "k", mine, 202, "{}")
        with pytest.raises(KeyReused, match=reused):
            kept.begin("acme", "k", "other", 30)

    def test_keys_of_tenants_have_nothing_to_do_with_each_other(self, kept: Idempotency) -> None:
        kept.begin("acme", "k", "hash", 30)

        assert isinstance(kept.begin("bolt", "k", "other", 30), Turn)
        assert isinstance(kept.begin("acme", "K", "other", 30), Turn)

    def test_while_it_is_being_answered_it_is_busy_and_then_anybodys(self, kept: Idempotency, clock: Clock) -> None:
        kept.begin("acme", "k", "hash", 30)
        busy = "the request with the Idempotency-Key 'k' is still being answered; send it again in a moment"
        clock.advance(29.9)
        with pytest.raises(KeyBusy, match=busy):
            kept.begin("acme", "k", "hash", 30)
        clock.advance(0.1)

        assert isinstance(kept.begin("acme", "k", "hash", 30), Turn)
        with pytest.raises(KeyBusy, match=busy):
            kept.begin("acme", "k", "hash", 30)

    def test_who_comes_too_late_disturbs_nobody(self, kept: Idempotency, clock: Clock) -> None:
        slow = turn(kept)
        clock.advance(30)
        other = turn(kept)
        kept.finish("acme", "k", slow, 500, "first, which was slow")
        kept.abandon("acme", "k", slow)
        kept.put_off("acme", "k", slow)
        with pytest.raises(KeyBusy):
            kept.begin("acme", "k", "hash", 30)
        kept.finish("acme", "k", other, 202, "second")
        kept.abandon("acme", "k", other)
        kept.put_off("acme", "k", other)

        assert kept.begin("acme", "k", "hash", 30) == Answer(202, "second")

    def test_an_abandoned_key_is_as_good_as_new(self, kept: Idempotency) -> None:
        kept.abandon("acme", "k", turn(kept))

        assert isinstance(kept.begin("acme", "k", "other", 30), Turn)

    def test_what_is_put_off_is_answered_when_the_same_comes_again(self, kept: Idempotency, clock: Clock) -> None:
        first = turn(kept)
        clock.advance(1)
        kept.put_off("acme", "k", first)
        with pytest.raises(KeyReused):
            kept.begin("acme", "k", "other", 30)
        again = turn(kept)

        assert (again.job_id, again.since) == (first.job_id, first.since)

    def test_whoever_answers_a_request_a_second_time_makes_the_same_job(self, kept: Idempotency, clock: Clock) -> None:
        begun = clock.now
        first = turn(kept)
        clock.advance(30)
        second = turn(kept)
        bolt = kept.begin("bolt", "k", "hash", 30)
        kept.abandon("acme", "k", second)
        clock.advance(1)
        anew = turn(kept)

        assert isinstance(bolt, Turn)
        assert re.fullmatch("batch-[0-9a-f]{10}", first.job_id or "")
        assert (second.job_id, second.since) == (first.job_id, first.since)
        assert len({each.job_id for each in (first, bolt, anew)}) == 3
        since = [begun, begun + timedelta(seconds=30), begun + timedelta(seconds=31)]
        assert [each.since for each in (first, bolt, anew)] == since

    def test_old_requests_are_swept_away(self, kept: Idempotency, clock: Clock) -> None:
        for key in ("a", "b", "c"):
            mine = kept.begin("acme", key, "hash", 30)
            assert isinstance(mine, Turn)
            kept.finish("acme", key, mine, 202, "{}")
            clock.advance(10)
        clock.advance(-15)

        assert kept.sweep(clock.now) == 2
        assert kept.sweep(clock.now) == 0
        assert isinstance(kept.begin("acme", "a", "other", 30), Turn)
        assert kept.begin("acme", "c", "hash", 30) == Answer(202, "{}")

    @pytest.mark.parametrize("is_left_over", [False, True], ids=["new", "left over"])
    def test_of_many_that_send_a_request_one_is_to_answer_it(
        self, kept: Idempotency, open_database: Callable[[], Database], clock: Clock, is_left_over: bool
    ) -> None:
        if is_left_over:
            kept.begin("acme", "k", "hash", 30)
            clock.advance(30)
        launchers = [Idempotency(open_database()) for _ in range(4)]
        start = threading.Barrier(8)

        def begin(n: int) -> str:
            start.wait()
            try:
                answer = launchers[n % 4].begin("acme", "k", "hash", 30)
            except KeyBusy:
                return "busy"
            return "mine" if isinstance(answer, Turn) else "answered"

        with ThreadPoolExecutor(8) as threads:
            told = list(threads.map(begin, range(8)))

        assert sorted(told) == ["busy"] * 7 + ["mine"]

    def test_of_many_that_try_again_and_again_each_turn_is_one_ones(
        self, kept: Idempotency, open_database: Callable[[], Database]
    ) -> None:
        launchers = [Idempotency(open_database()) for _ in range(4)]
        at_it = threading.Semaphore(1)
        turns: list[int] = []
        together: list[int] = []

        def answer(n: int) -> None:
            while not together:
                try:
                    turn = launchers[n].begin("acme", "k", "hash", 30)
                except KeyBusy:
                    continue
                if isinstance(turn, Answer):
                    return
                if not at_it.acquire(blocking=False):
                    together.append(n)
                    return
                turns.append(n)
                is_last = len(turns) == 20
                at_it.release()
                if is_last:
                    launchers[n].finish("acme", "k", turn, 202, "{}")
                else:
                    launchers[n].abandon("acme", "k", turn)

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(answer, range(4)))

        assert together == []
        assert len(turns) == 20
