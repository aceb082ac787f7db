"""How fast a job gets on: steady where it is, soon another where it changes, and known after a retry."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from launcher.state.speed import Speed, ends_at, sped

BEGAN = datetime(2025, 3, 15, 10, 0, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


def seen(counts: list[tuple[float, int]], before: Speed | None = None, attempt: int = 1) -> Speed:
    """The speed once an attempt was seen with so many rows at these seconds."""
    speed = before
    for at, done in counts:
        speed = sped(speed, attempt, after(0), done, after(at))
    assert speed is not None
    return speed


def left_s(speed: Speed, left: int, now: float) -> float:
    end = ends_at(speed, left, after(now))
    assert end is not None
    return (end - after(now)).total_seconds()


def test_a_steady_job_ends_as_its_mean_says() -> None:
    speed = seen([(n, 100 * n) for n in range(1, 301)])

    assert left_s(speed, 5000, 300) == pytest.approx(50)


def test_a_job_that_grows_slow_is_soon_told_of_so_and_without_a_jump() -> None:
    total = 100_000
    counts = [(n, 1000 * n if n <= 60 else 60_000 + 100 * (n - 60)) for n in range(1, 181)]
    speed: Speed | None = None
    ends = []
    for at, done in counts:
        speed = sped(speed, 1, after(0), done, after(at))
        ends.append((left_s(speed, total - done, at), (total - done) / (1000 if at <= 60 else 100)))

    # Two minutes later it is nearly right, where the mean of all would be three times too fast.
    told, true = ends[-1]
    assert true / 1.5 < told < true * 1.5
    assert max(max(a / b, b / a) for (a, _), (b, _) in pairwise(ends)) < 1.3


def test_rows_that_come_in_pieces_do_not_have_the_end_move_between_them() -> None:
    speed = seen([(10, 1000), (20, 2000), (30, 3000)])
    ends = {ends_at(sped(speed, 1, after(0), 3000, after(at)), 1000, after(at)) for at in (30, 33, 36, 39.5)}

    assert ends == {after(40)}


def test_an_end_is_never_past_and_is_put_off_while_nothing_comes() -> None:
    speed = seen([(10, 1000)])

    assert ends_at(speed, 100, after(15)) == after(15)
    assert left_s(speed, 1000, 100) < left_s(speed, 1000, 200)


def test_a_new_attempt_knows_at_once_what_the_one_before_has_learned() -> None:
    first = seen([(n, 100 * n) for n in range(1, 61)])
    # It is prepared for a while, and began at 0 again by its own clock.
    again = seen([(1, 0)], first, attempt=2)
    later = seen([(10, 1000)], again, attempt=2)

    assert left_s(again, 500, 1) == pytest.approx(4)
    assert left_s(later, 500, 10) == pytest.approx(5)


def test_what_says_nothing_yet_says_nothing() -> None:
    assert ends_at(seen([(0.5, 10)]), 10, after(0.5)) is None
    assert ends_at(seen([(5, 0)]), 10, after(5)) is None


def test_a_clock_that_stands_still_or_goes_back_teaches_nothing() -> None:
    speed = seen([(10, 1000)])

    assert sped(speed, 1, after(0), 2000, after(10)) == speed
    assert sped(speed, 1, after(0), 2000, after(5)) == speed


def test_an_end_beyond_the_calendar_is_none() -> None:
    assert ends_at(seen([(10**6, 1)]), 10**15, after(10**6)) is None
