"""When a schedule is due: five fields of cron in a timezone, right on the days that the clock changes.

Cron means what Debian's cron means (`man 5 cron`, `man 8 cron`), as the library `cronsim` reads it. On days that the
clock changes there are two kinds of jobs. One whose minute and hour both name times (`30 2 * * *`) runs once for each
of them: a time that is skipped runs as soon as the clock has jumped, one that comes twice runs the first time. One
whose minute or hour begins with a star (`0 * * * *`, `*/20 2 * * *`) runs whenever the clock on the wall shows such a
time: an hour that comes twice runs twice, one that is skipped does not run.
"""

import difflib
import zoneinfo
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Literal

from cronsim import CronSim, CronSimError

from launcher.errors import CronUnreadable

MissedPolicy = Literal["run_once", "skip"]

# All minutes, hours and days written out come to 300 characters; a line of a message should still bear it.
_MAX_CHARS = 400
_SHOWN_CHARS = 60
_FIELDS = "minute (0-59), hour (0-23), day of the month (1-31), month (1-12), day of the week (0-7 or SUN-SAT)"
# Any time would do: it is where the search for a first run begins.
_SOMEWHEN = datetime(2001, 1, 1)
# No zone changes its clock twice within it (Ramadan, in Morocco, is the shortest such time).
_SCAN = timedelta(days=1)
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class Cron:
    """A schedule, such as `Cron("0 2 * * *", "Europe/Berlin")`: every day at two.

    Args:
        expression: minute, hour, day of the month, month, day of the week. Names (`MON`, `jan`), ranges, lists, steps,
            and, for days, `L` (the last), `LW` (the last weekday), `5L` and `MON#2`. Seconds and `@daily` are not read.
        timezone: a name of the tz database, such as `UTC` or `Europe/Berlin`.

    Raises:
        CronUnreadable: either cannot be read, or the time never comes.
    """

    expression: str
    timezone: str

    def __post_init__(self) -> None:
        _zone(self.timezone)
        if len(self.expression) > _MAX_CHARS:
            raise CronUnreadable(
                f"the cron expression has {len(self.expression)} characters; at most {_MAX_CHARS} are read"
            )
        shown = f"cron {self.expression!r}"
        fields = self.expression.split()
        if len(fields) != 5:
            counted = f"{len(fields)} field{'s' * (len(fields) != 1)}"
            raise CronUnreadable(f"{shown} has {counted}; write five, parted by spaces: {_FIELDS}")
        try:
            next(CronSim(self.expression, _SOMEWHEN))
        except CronSimError as error:
            wrong = str(error).removeprefix("Bad ").replace("-", " ")
            raise CronUnreadable(f"{shown} cannot be read at its {wrong}; it takes {_FIELDS}") from error
        except StopIteration as error:
            raise CronUnreadable(f"{shown} never comes; name a day that exists") from error

    def next_after(self, at: datetime) -> datetime:
        """The first time after `at` that it is due, in UTC; never `at` itself."""
        at = at.astimezone(UTC)
        return self._next_of_clock(at) if self._follows_the_clock else self._next_of_times(at)

    def next_times(self, after: datetime, n: int) -> list[datetime]:
        """The first `n` times after `after`, in order, in UTC."""
        times: list[datetime] = []
        while len(times) < n:
            times.append(self.next_after(times[-1] if times else after))
        return times

    def missed(self, since: datetime, until: datetime, most: int = 1000) -> list[datetime]:
        """The times after `since` up to and with `until`, in order, in UTC; the last `most` of them if there are more.

        What it costs depends on `most`, not on how long ago `since` is.
        """
        since, until = since.astimezone(UTC), until.astimezone(UTC)
        back = timedelta(hours=1)
        while True:
            start = since if back >= until - since else until - back
            times = list(self._between(start, until))
            if start == since or len(times) >= most:
                return times[max(0, len(times) - most) :]
            back *= 2

    def _between(self, since: datetime, until: datetime) -> Iterator[datetime]:
        at = self.next_after(since)
        while at <= until:
            yield at
            at = self.next_after(at)

    @property
    def _follows_the_clock(self) -> bool:
        minute, hour = self.expression.split()[:2]
        return minute.startswith("*") or hour.startswith("*")

    def _next_of_times(self, at: datetime) -> datetime:
        times = CronSim(self.expression, at.astimezone(_zone(self.timezone)))
        # In an hour that comes again, the library's first answers may lie in the one before.
        return next(time for time in (each.astimezone(UTC) for each in times) if time > at)

    def _next_of_clock(self, at: datetime) -> datetime:
        """Between two changes of the clock, local time is UTC moved by a constant, and cron is simple.

        The library's own way goes wrong where the clock changes by half an hour (Australia/Lord_Howe).
        """
        at = since = at.replace(microsecond=0)
        while True:
            offset = self._offset(since)
            due = next(CronSim(self.expression, (at + offset).replace(tzinfo=None))).replace(tzinfo=UTC) - offset
            change = self._change(since, due)
            if change is None:
                return due
            # The moment of the change itself may be due.
            at, since = change - _SECOND, change

    def _change(self, since: datetime, until: datetime) -> datetime | None:
        """The first second after `since`, up to and with `until`, at which the clock has another offset."""
        offset = self._offset(since)
        before = since
        while before < until:
            after = min(before + _SCAN, until)
            if self._offset(after) != offset:
                while after - before > _SECOND:
                    middle = before + (after - before) // 2
                    before, after = (middle, after) if self._offset(middle) == offset else (before, middle)
                return after
            before = after
        return None

    def _offset(self, at: datetime) -> timedelta:
        return at.astimezone(_zone(self.timezone)).utcoffset() or timedelta()


def decide_missed(policy: MissedPolicy, due: Sequence[datetime], now: datetime, grace_s: float) -> datetime | None:
    """Which of the times that are due to run now; None for none of them.

    The latest one runs in any case while it is at most `grace_s` old: nobody would say that it was missed. If it is
    older, `run_once` runs it all the same, and `skip` does not. Earlier ones never run.
    """
    latest = max(due, default=None)
    if latest is None or policy == "run_once":
        return latest
    return latest if now - latest <= timedelta(seconds=grace_s) else None


@cache
def _zone(name: str) -> zoneinfo.ZoneInfo:
    remedy = "use a name such as UTC or Europe/Berlin"
    try:
        # These differ from machine to machine, or count leap seconds.
        if name == "localtime" or name.startswith(("right/", "posix/")):
            raise ValueError(name)
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        known = {each.lower(): each for each in zoneinfo.available_timezones() - {"localtime"}}
        close = difflib.get_close_matches(name.lower()[:_SHOWN_CHARS], known, n=1)
        if close:
            remedy = f"did you mean {known[close[0]]}?"
        raise CronUnreadable(f"timezone {name[:_SHOWN_CHARS]!r} is not known; {remedy}") from error
