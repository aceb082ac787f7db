"""`{{ scheduled_at }}` and its like in a job's body."""

from datetime import UTC, datetime
from typing import Any

import pytest

from launcher.errors import TemplateWrong
from launcher.templates import check, render

# 02:30 in Berlin in winter; a Thursday, the fourth week of an ISO year.
AT = datetime(2026, 1, 22, 1, 30, tzinfo=UTC)


def rendered(text: str, at: datetime = AT, timezone: str = "Europe/Berlin") -> Any:
    return render(text, at, timezone, "batch-0123456789")


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{{ scheduled_at }}", "2026-01-22T02:30:00+01:00"),
        ("{{scheduled_at}}", "2026-01-22T02:30:00+01:00"),
        ("{{\tscheduled_at\n}}", "2026-01-22T02:30:00+01:00"),
        ("{{ scheduled_date }}", "2026-01-22"),
        ("{{ scheduled_date - 1d }}", "2026-01-21"),
        ("{{ scheduled_date-3h }}", "2026-01-21"),
        ("{{ job_id }}", "batch-0123456789"),
        ("{{ scheduled_at - 1d }}", "2026-01-21T02:30:00+01:00"),
        ("{{scheduled_at-1d}}", "2026-01-21T02:30:00+01:00"),
        ("{{ scheduled_at +1d -  2h + 15m }}", "2026-01-23T00:45:00+01:00"),
        ("{{ scheduled_at - 0d }}", "2026-01-22T02:30:00+01:00"),
        ("{{ scheduled_at - 22d | %Y }}", "2025"),
        ("{{ scheduled_at | %Y/%m/%d }}", "2026/01/22"),
        ("{{ scheduled_at|%H:%M:%S }}", "02:30:00"),
        ("{{ scheduled_at | %j %V %G %u %y }}", "022 04 2026 4 26"),
        ("{{ scheduled_at | %b %B %a %A }}", "Jan January Thu Thursday"),
        ("{{ scheduled_at | %z %s }}", f"+0100 {int(AT.timestamp())}"),
        ("{{ scheduled_at | day=%d | of the month }}", "day=22 | of the month"),
        (
            "s3/{{ scheduled_at | %Y }}/{{ job_id }}/{{ scheduled_date }}.parquet",
            "s3/2026/batch-0123456789/2026-01-22.parquet",
        ),
        ("{ scheduled_at } }} {", "{ scheduled_at } }} {"),
        ("a {single} brace", "a {single} brace"),
        ("{{ scheduled_at | %Y}%m }}", "2026}01"),
    ],
)
def test_a_template_is_filled_in(text: str, filled: str) -> None:
    assert check(text) == []
    assert rendered(text) == filled


@pytest.mark.parametrize(
    ("text", "at", "filled"),
    [
        ("{{ scheduled_at - 1d }}", datetime(2026, 3, 29, 10, tzinfo=UTC), "2026-03-28T12:00:00+01:00"),
        ("{{ scheduled_at - 24h }}", datetime(2026, 3, 29, 10, tzinfo=UTC), "2026-03-28T11:00:00+01:00"),
        ("{{ scheduled_at + 1d }}", datetime(2026, 10, 24, 10, tzinfo=UTC), "2026-10-25T12:00:00+01:00"),
        ("{{ scheduled_at + 24h }}", datetime(2026, 10, 24, 10, tzinfo=UTC), "2026-10-25T11:00:00+01:00"),
        # 02:30 of the next day is skipped.
        ("{{ scheduled_at + 1d }}", datetime(2026, 3, 28, 1, 30, tzinfo=UTC), "2026-03-29T03:30:00+02:00"),
        # The second of two 02:30.
        ("{{ scheduled_at }}", datetime(2026, 10, 25, 1, 30, tzinfo=UTC), "2026-10-25T02:30:00+01:00"),
        ("{{ scheduled_at - 60m }}", datetime(2026, 10, 25, 1, 30, tzinfo=UTC), "2026-10-25T02:30:00+02:00"),
        ("{{ scheduled_at - 1d }}", datetime(2026, 10, 25, 1, 30, tzinfo=UTC), "2026-10-24T02:30:00+02:00"),
    ],
)
def test_days_keep_the_clock_and_hours_are_real(text: str, at: datetime, filled: str) -> None:
    assert rendered(text, at) == filled


def test_the_day_is_that_of_the_schedules_timezone() -> None:
    at = datetime(2026, 1, 22, 23, 30, tzinfo=UTC)

    assert [rendered("{{ scheduled_date }}", at, zone) for zone in ("UTC", "Asia/Tokyo", "America/New_York")] == [
        "2026-01-22",
        "2026-01-23",
        "2026-01-22",
    ]
    assert rendered("{{ scheduled_at }}", at, "UTC") == "2026-01-22T23:30:00+00:00"


def test_seconds_are_enough() -> None:
    assert rendered("{{ scheduled_at }}", AT.replace(microsecond=5)) == "2026-01-22T02:30:00+01:00"


def test_only_strings_are_filled_in_and_never_keys() -> None:
    body = {
        "input": {"path": ["in/{{ scheduled_date }}", "in/all"], "{{ job_id }}": 1},
        "config": {"n": 1, "ratio": 0.5, "flag": True, "none": None},
        "deep": [[{"a": "{{ job_id }}"}]],
    }

    assert render(body, AT, "UTC", "batch-1") == {
        "input": {"path": ["in/2026-01-22", "in/all"], "{{ job_id }}": 1},
        "config": {"n": 1, "ratio": 0.5, "flag": True, "none": None},
        "deep": [[{"a": "batch-1"}]],
    }
    assert body["input"]["path"] == ["in/{{ scheduled_date }}", "in/all"]  # type: ignore[index]


def test_what_is_filled_in_is_not_read_again() -> None:
    assert render("{{ job_id }}", AT, "UTC", "{{ scheduled_at }}") == "{{ scheduled_at }}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "{{ schedule_at }}",
            "has {{ schedule_at }}, and 'schedule_at' is not known; use scheduled_at, scheduled_date or job_id",
        ),
        ("{{ }}", "has {{ }}, and '' is not known; use scheduled_at, scheduled_date or job_id"),
        ("{{}}", "has {{}}, and '' is not known; use scheduled_at, scheduled_date or job_id"),
        ("{{ SCHEDULED_AT }}", "and 'SCHEDULED_AT' is not known"),
        ("{{ scheduled_at.__class__ }}", "and 'scheduled_at.__class__' is not known"),
        ("{{ scheduled_at() }}", "and 'scheduled_at()' is not known"),
        ("{{ {{ job_id }} }}", "is not known"),
        ("{{ scheduled_at", "has a {{ scheduled_at that nothing closes; write {{ scheduled_at }}"),
        ("{{ job_id }} {{", "has a {{ that nothing closes; write {{ scheduled_at }}"),
        ("{{ scheduled_at - 1 }}", "has {{ scheduled_at - 1 }}; behind scheduled_at write steps such as - 1d, + 6h or"),
        ("{{ scheduled_at - 1w }}", "write steps such as"),
        ("{{ scheduled_at - 1.5d }}", "write steps such as"),
        ("{{ scheduled_at 1d }}", "write steps such as"),
        ("{{ scheduled_at - - 1d }}", "write steps such as"),
        ("{{ scheduled_at - 1d x }}", "write steps such as"),
        ("{{ scheduled_at - 1000000d }}", "write steps such as"),
        ("{{ scheduled_at - ١d }}", "write steps such as"),
        ("{{ scheduled_at - 36526d }}", "which moves by over 100 years; write smaller steps"),
        ("{{ scheduled_at - 30000d + 30000d }}", "which moves by over 100 years; write smaller steps"),
        ("{{ scheduled_date | %Y }}", "and scheduled_date has a form already; write {{ scheduled_at | … }}"),
        ("{{ job_id | %Y }}", "and job_id takes nothing behind it; write {{ job_id }}"),
        ("{{ job_id - 1d }}", "and job_id takes nothing behind it; write {{ job_id }}"),
        ("{{ scheduled_at | }}", "with nothing behind the bar; write a form such as %Y-%m-%d"),
        ("{{ scheduled_at | %c }}", "and '%c' is not known; use %Y %m %d %H %M %S %j %V %G %u %y %b %B %a %A %z %s"),
        ("{{ scheduled_at | %-d }}", "and '%-' is not known"),
        ("{{ scheduled_at | %% }}", "and '%%' is not known"),
        ("{{ scheduled_at | 100% }}", "and '%' is not known"),
        ("{{ " + "x" * 1000 + " }}", "has {{ " + "x" * 56 + "…, and '" + "x" * 60 + "' is not known"),
    ],
)
def test_what_cannot_be_filled_in_is_told_without_a_time(text: str, problem: str) -> None:
    [(field, told)] = check({"input": {"path": ["fine", text]}})

    assert field == "input.path[1]"
    assert problem in told
    assert "\n" not in told
    with pytest.raises(TemplateWrong) as caught:
        render({"input": {"path": ["fine", text]}}, AT, "UTC", "batch-1")
    assert str(caught.value) == f"{field} {told}"


def test_every_mistake_is_told_in_order() -> None:
    assert [
        field for field, _ in check({"a": "{{ x }} {{ job_id }} {{ y }}", "b": {"c": ["{{ z"]}, "d": "{{ job_id }}"})
    ] == [
        "a",
        "a",
        "b.c[0]",
    ]
    assert check({"a": 1, "b": None, "c": "plain }}"}) == []
    assert [field for field, _ in check("{{ x }}")] == [""]
    assert [field for field, _ in check(["{{ x }}"])] == ["[0]"]


def test_long_texts_are_read_in_time_that_grows_with_their_length() -> None:
    assert check("{{" + " " * 200_000)[0][1].startswith("has a {{ that nothing closes")
    assert len(check("{{ scheduled_at -" + " " * 200_000 + "x }}")) == 1
    assert len(check("{{ scheduled_at |" + " " * 200_000 + "%x }}")) == 1
    assert check("{{ job_id }}" * 50_000) == []
    assert len(check("{{ scheduled_at " + "- 1d " * 5_000 + "}}")) == 0
