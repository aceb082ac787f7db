"""When schedules are due, on days like any other and on those when the clock changes."""

import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from launcher.cron import Cron, decide_missed
from launcher.errors import CronUnreadable

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def due_on_the_wall(cron: Cron, since: datetime, until: datetime) -> list[str]:
    """The fire times of (since, until] as the clock on the wall shows them."""
    zone = ZoneInfo(cron.timezone)
    return [at.astimezone(zone).strftime("%d %H:%M %z") for at in cron.missed(since, until)]


@pytest.mark.parametrize(
    ("expression", "timezone", "line"),
    [
        ("0 2 * *", "UTC", "cron '0 2 * *' has 4 fields; write five, parted by spaces: minute (0-59), "),
        ("0 0 2 * * *", "UTC", "cron '0 0 2 * * *' has 6 fields; write five"),
        ("@daily", "UTC", "cron '@daily' has 1 field; write five"),
        ("", "UTC", "cron '' has 0 fields; write five"),
        ("60 2 * * *", "UTC", "cron '60 2 * * *' cannot be read at its minute; it takes minute (0-59), hour (0-23)"),
        ("0 24 * * *", "UTC", "cron '0 24 * * *' cannot be read at its hour; it takes"),
        ("0 2 0 * *", "UTC", "cannot be read at its day of month; it takes"),
        ("0 2 * FOO *", "UTC", "cannot be read at its month; it takes"),
        ("0 2 * * 8", "UTC", "cannot be read at its day of week; it takes"),
        ("0/0 2 * * *", "UTC", "cannot be read at its minute; it takes"),
        ("0 2 30 2 *", "UTC", "cannot be read at its day of month; it takes"),
        ("0 2 31 4,6,9,11 *", "UTC", "cannot be read at its day of month; it takes"),
        ("0 2 */29 2 MON#2", "UTC", "cron '0 2 */29 2 MON#2' never comes; name a day that exists"),
        ("1," * 300 + "1 2 * * *", "UTC", "the cron expression has 609 characters; at most 400 are read"),
        ("0 2 * * *", "Europe/Berlim", "timezone 'Europe/Berlim' is not known; did you mean Europe/Berlin?"),
        ("0 2 * * *", "europe/berlin", "timezone 'europe/berlin' is not known; did you mean Europe/Berlin?"),
        ("0 2 * * *", "+02:00", "timezone '+02:00' is not known; use a name such as UTC or Europe/Berlin"),
        ("0 2 * * *", "../../etc/passwd", "timezone '../../etc/passwd' is not known; use"),
        ("0 2 * * *", "/etc/localtime", "timezone '/etc/localtime' is not known;"),
        ("0 2 * * *", "America", "timezone 'America' is not known;"),
        ("0 2 * * *", "localtime", "timezone 'localtime' is not known;"),
        ("0 2 * * *", "right/UTC", "timezone 'right/UTC' is not known;"),
        ("0 2 * * *", "", "timezone '' is not known; use"),
        ("0 2 * * *", "a\0b", "timezone 'a\\x00b' is not known; use"),
        ("0 2 * * *", "\ud800", "timezone '\\ud800' is not known; use"),
        ("0 2 * * *", "x" * 5000, "timezone '" + "x" * 60 + "' is not known; use"),
    ],
)
def test_what_cannot_be_read_is_one_line_with_the_remedy(expression: str, timezone: str, line: str) -> None:
    with pytest.raises(CronUnreadable) as caught:
        Cron(expression, timezone)

    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("timezone", ["UTC", "Europe/Berlin"])
@pytest.mark.parametrize(
    ("expression", "first", "second"),
    [
        ("0 2 * * *", "2026-03-02 02:00", "2026-03-03 02:00"),
        ("*/15 * * * *", "2026-03-01 12:15", "2026-03-01 12:30"),
        ("0 9-17 * * mon-fri", "2026-03-02 09:00", "2026-03-02 10:00"),
        ("30 6 1 JAN *", "2027-01-01 06:30", "2028-01-01 06:30"),
        ("0 0 29 2 *", "2028-02-29 00:00", "2032-02-29 00:00"),
        ("0 0 L * *", "2026-03-31 00:00", "2026-04-30 00:00"),
        ("0 0 * * 7", "2026-03-08 00:00", "2026-03-15 00:00"),
        # Either day counts where both are named, as in every cron.
        ("0 0 13 * FRI", "2026-03-06 00:00", "2026-03-13 00:00"),
        # A day of the month that February lacks, or a Monday.
        ("0 0 30 2 MON", "2027-02-01 00:00", "2027-02-08 00:00"),
    ],
)
def test_an_expression_is_due_on_the_clock_of_its_zone(expression: str, first: str, second: str, timezone: str) -> None:
    zone = ZoneInfo(timezone)
    noon = datetime(2026, 3, 1, 12, tzinfo=zone)

    times = Cron(expression, timezone).next_times(noon, 2)

    assert [at.tzinfo for at in times] == [UTC, UTC]
    assert times == [datetime.fromisoformat(each).replace(tzinfo=zone) for each in (first, second)]


def test_a_time_is_strictly_after_the_one_given_to_the_second() -> None:
    cron = Cron("0 2 * * *", "UTC")
    due = utc("2026-03-02 02:00")

    assert cron.next_after(due) == due + timedelta(days=1)
    assert cron.next_after(due - timedelta(microseconds=1)) == due
    assert cron.next_after(due + timedelta(microseconds=1)) == due + timedelta(days=1)
    assert cron.next_after(due.astimezone(ZoneInfo("Asia/Tokyo"))) == due + timedelta(days=1)


@pytest.mark.parametrize(
    ("expression", "wall"),
    [
        pytest.param("30 2 * * *", ["28 02:30 +0100", "29 03:00 +0200", "30 02:30 +0200"], id="skipped, so at once"),
        pytest.param(
            "0,30 2 * * *",
            ["28 02:00 +0100", "28 02:30 +0100", "29 03:00 +0200", "30 02:00 +0200", "30 02:30 +0200"],
            id="two",
        ),
        pytest.param(
            "0 2,3 * * *", ["28 02:00 +0100", "28 03:00 +0100", "29 03:00 +0200", "30 02:00 +0200"], id="both"
        ),
        pytest.param("0 3 * * *", ["28 03:00 +0100", "29 03:00 +0200"], id="right after"),
        pytest.param("59 1 * * *", ["28 01:59 +0100", "29 01:59 +0100", "30 01:59 +0200"], id="right before"),
    ],
)
def test_a_daily_job_runs_once_when_the_clock_goes_forward(expression: str, wall: list[str]) -> None:
    cron = Cron(expression, "Europe/Berlin")

    assert due_on_the_wall(cron, utc("2026-03-27 23:00"), utc("2026-03-30 00:30")) == wall


def test_a_daily_job_runs_once_when_the_clock_goes_back() -> None:
    cron = Cron("30 2 * * *", "Europe/Berlin")

    assert due_on_the_wall(cron, utc("2026-10-24 00:00"), utc("2026-10-26 12:00")) == [
        "24 02:30 +0200",
        "25 02:30 +0200",
        "26 02:30 +0100",
    ]


def test_asked_in_the_hour_that_comes_again_a_daily_job_is_due_tomorrow() -> None:
    cron = Cron("30 2 * * *", "Europe/Berlin")
    first = utc("2026-10-25 00:30")

    for minutes in range(120):
        assert cron.next_after(first + minutes * MINUTE) == utc("2026-10-26 01:30"), minutes


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25", "2026-06-01"], ids=["forward", "back", "as ever"])
@pytest.mark.parametrize("timezone", ["Europe/Berlin", "UTC", "America/New_York", "Asia/Kathmandu"])
@pytest.mark.parametrize("expression", ["0 * * * *", "0 */1 * * *"])
def test_an_hourly_job_runs_each_real_hour(expression: str, timezone: str, day: str) -> None:
    start = utc(day) - timedelta(days=1)
    times = Cron(expression, timezone).missed(start, start + timedelta(days=3))

    assert len(times) == 72
    assert {later - earlier for earlier, later in pairwise(times)} == {timedelta(hours=1)}


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25"])
def test_utc_knows_no_such_days(day: str) -> None:
    start = utc(day) - timedelta(days=1)

    assert Cron("30 2 * * *", "UTC").missed(start, start + timedelta(days=3)) == [
        start + timedelta(days=n, hours=2, minutes=30) for n in range(3)
    ]


# Zone, a day around the change, and what is odd about it.
CHANGES = [
    pytest.param("Europe/Berlin", "2026-03-29", id="an hour forward"),
    pytest.param("Europe/Berlin", "2026-10-25", id="an hour back"),
    pytest.param("Africa/Cairo", "2026-04-24", id="no midnight"),
    pytest.param("America/Santiago", "2026-04-05", id="midnight twice"),
    pytest.param("Australia/Lord_Howe", "2026-04-05", id="half an hour back"),
    pytest.param("Australia/Lord_Howe", "2026-10-04", id="half an hour forward"),
    pytest.param("Pacific/Apia", "2011-12-30", id="a day that never was"),
    pytest.param("America/Caracas", "2016-05-01", id="half an hour, for good"),
]


@pytest.mark.parametrize(("timezone", "day"), CHANGES)
@pytest.mark.parametrize(
    ("expression", "minutes", "hours"),
    [
        ("* * * * *", range(60), range(24)),
        ("*/20 * * * *", range(0, 60, 20), range(24)),
        ("*/15 3 * * *", range(0, 60, 15), [3]),
        ("*/10 0-2 * * *", range(0, 60, 10), range(3)),
        ("45 * * * *", [45], range(24)),
        ("5 */2 * * *", [5], range(0, 24, 2)),
    ],
)
def test_a_starred_job_runs_whenever_the_wall_shows_its_time(
    expression: str, minutes: list[int], hours: list[int], timezone: str, day: str
) -> None:
    zone = ZoneInfo(timezone)
    start = utc(day) - timedelta(days=1)
    every = [start + n * MINUTE for n in range(1, 3 * 24 * 60 + 1)]
    wall = [at.astimezone(zone) for at in every]
    expected = [at for at, shown in zip(every, wall, strict=True) if shown.minute in minutes and shown.hour in hours]

    assert Cron(expression, timezone).missed(start, every[-1], most=10_000) == expected


@pytest.mark.parametrize(("timezone", "day"), CHANGES)
@pytest.mark.parametrize("expression", ["30 2 * * *", "0 0 * * *", "15 1 * * *", "45 1 * * *", "0 12 * * *"])
def test_a_daily_job_runs_once_a_day_whatever_the_clock_does(expression: str, timezone: str, day: str) -> None:
    start = utc(day).replace(tzinfo=ZoneInfo(timezone)) - timedelta(days=2, hours=-12, seconds=-1)
    times = Cron(expression, timezone).missed(start, start + timedelta(days=4))
    asked = [
        Cron(expression, timezone).next_after(times[0] + n * 7 * MINUTE)
        for n in range(int((times[-1] - times[0]) / MINUTE) // 7)
    ]

    # A day that never was is made up for at the start of the next, unless that is due by itself.
    assert len(times) == (3 if (timezone, expression) == ("Pacific/Apia", "0 0 * * *") else 4)
    assert sorted(set(asked)) == times[1:]


def test_what_was_missed_is_counted_with_the_end_and_without_the_start() -> None:
    cron = Cron("0 * * * *", "UTC")
    hours = [NOON + timedelta(hours=n) for n in range(4)]

    assert cron.missed(hours[0], hours[3]) == hours[1:]
    assert cron.missed(hours[0] - MINUTE, hours[0]) == hours[:1]
    assert cron.missed(hours[0], hours[0]) == []
    assert cron.missed(hours[1], hours[0]) == []
    assert cron.missed(hours[0], hours[0] + MINUTE) == []


def test_of_much_that_was_missed_the_last_is_told_soon() -> None:
    cron = Cron("* * * * *", "Europe/Berlin")
    since = NOON - timedelta(days=3650)

    started = time.monotonic()
    times = cron.missed(since, NOON, most=5)
    took_s = time.monotonic() - started

    assert times == [NOON - n * MINUTE for n in (4, 3, 2, 1, 0)]
    assert took_s < 1
    assert cron.missed(since, NOON, most=0) == []


@pytest.mark.parametrize("expression", ["0 2 */29 2 MON#2", "0 0 * 2 SUN#5", "0 0 29 2 *", "* * * * *"])
def test_even_a_rare_time_is_found_soon(expression: str) -> None:
    started = time.monotonic()
    with suppress(CronUnreadable):
        Cron(expression, "Europe/Berlin").next_times(NOON, 2)
    took_s = time.monotonic() - started

    assert took_s < 2


@pytest.mark.parametrize(
    ("policy", "ages_s", "chosen_s"),
    [
        ("run_once", [], None),
        ("skip", [], None),
        ("run_once", [30], 30),
        ("skip", [30], 30),
        ("skip", [60], 60),
        ("skip", [61], None),
        ("run_once", [61], 61),
        ("run_once", [7200, 3600], 3600),
        ("run_once", [3600, 7200], 3600),
        ("skip", [7200, 3600], None),
        ("skip", [7200, 3600, 10], 10),
    ],
)
def test_of_missed_runs_at_most_the_latest_runs(policy: str, ages_s: list[int], chosen_s: int | None) -> None:
    due = [NOON - timedelta(seconds=age_s) for age_s in ages_s]
    chosen = None if chosen_s is None else NOON - timedelta(seconds=chosen_s)

    assert decide_missed(policy, due, NOON, grace_s=60) == chosen
