"""`{{ scheduled_at }}` in a job's body or in a local spec: a daily job reads its day.

    {{ scheduled_at }}                      2026-03-29T02:30:00+02:00, in the schedule's timezone
    {{ scheduled_at - 1d + 6h | %Y/%m/%d }} moved, and written as one likes
    {{ scheduled_date }}                    2026-03-29, the same as {{ scheduled_at | %Y-%m-%d }}
    {{ scheduled_date - 1d }}               the day before
    {{ job_id }}                            batch-0123456789

Days are days of the calendar: a day before 02:30 is 02:30, also where the clock changed in between. Hours and minutes
are real ones. Steps are taken from left to right. Nothing else can be written, and nothing is ever evaluated.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from launcher.errors import TemplateWrong

_OPEN, _CLOSE = "{{", "}}"
_NAMES = ("scheduled_at", "scheduled_date", "job_id")
# One that is meant, whether it is closed or not; other braces may be text.
_MEANT = re.compile(r"\{\{\s*(?:" + "|".join(_NAMES) + r")\b[^{}]*\}{0,2}")
_NAME = re.compile(r"[^\s+-]*")
_STEP = re.compile(r" ?([+-]) ?([0-9]{1,6})([dhm])")
_UNITS = {"d": timedelta(days=1), "h": timedelta(hours=1), "m": timedelta(minutes=1)}
# Far more than anyone means, and far from where the calendar ends.
_MAX_MOVE = timedelta(days=36_525)
_SHOWN_CHARS = 60

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
# Not `strftime` itself: it asks the machine for its language and, for %s, for its timezone.
_DIRECTIVES: Mapping[str, Callable[[datetime], str]] = {
    "Y": lambda at: f"{at.year:04}",
    "m": lambda at: f"{at.month:02}",
    "d": lambda at: f"{at.day:02}",
    "H": lambda at: f"{at.hour:02}",
    "M": lambda at: f"{at.minute:02}",
    "S": lambda at: f"{at.second:02}",
    "j": lambda at: f"{at.timetuple().tm_yday:03}",
    "V": lambda at: f"{at.isocalendar().week:02}",
    "G": lambda at: f"{at.isocalendar().year:04}",
    "u": lambda at: str(at.isoweekday()),
    "y": lambda at: f"{at.year % 100:02}",
    "b": lambda at: _MONTHS[at.month - 1][:3],
    "B": lambda at: _MONTHS[at.month - 1],
    "a": lambda at: _DAYS[at.weekday()][:3],
    "A": lambda at: _DAYS[at.weekday()],
    "z": lambda at: at.strftime("%z"),
    "s": lambda at: str(int(at.timestamp())),
}
_DIRECTIVE = re.compile(r"%(.?)", re.DOTALL)


def render(value: Any, scheduled_at: datetime, timezone: str | tzinfo, job_id: str) -> Any:
    """`value` with each `{{ … }}` in its strings filled in; keys of mappings stay as they are.

    Args:
        value: JSON: mappings, lists, strings, numbers, true, false and null. It is not changed.
        scheduled_at: when the run was due.
        timezone: the schedule's, a name of the tz database; or the timezone itself.
        job_id: the run's job.

    Raises:
        TemplateWrong: names the field; `check` would have told.
    """
    local = scheduled_at.astimezone(ZoneInfo(timezone) if isinstance(timezone, str) else timezone)

    def fill(field: str, text: str) -> str:
        written = []
        for literal, inner in _pieces(text):
            written.append(literal)
            if inner is not None:
                problem = _problem(inner)
                if problem is not None:
                    raise TemplateWrong(field, problem)
                written.append(_filled(inner, local, job_id))
        return "".join(written)

    return _walk("", value, fill)


def check(value: Any) -> list[tuple[str, str]]:
    """What is wrong with the `{{ … }}` in `value`: (field, the rest of the sentence about it), in order.

    A field is written as `input.path` or `input.path[0]`.
    """
    problems: list[tuple[str, str]] = []

    def look(field: str, text: str) -> str:
        for _, inner in _pieces(text):
            problem = None if inner is None else _problem(inner)
            if problem is not None:
                problems.append((field, problem))
        return text

    _walk("", value, look)
    return problems


def meant(text: str) -> str | None:
    """The first of these templates in `text`, as it stands there; None where there is none."""
    found = _MEANT.search(text)
    return _shown(found[0]) if found else None


def _walk(field: str, value: Any, of_text: Callable[[str, str], str]) -> Any:
    if isinstance(value, str):
        return of_text(field, value) if _OPEN in value else value
    if isinstance(value, Mapping):
        return {key: _walk(f"{field}.{key}".lstrip("."), each, of_text) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_walk(f"{field}[{n}]", each, of_text) for n, each in enumerate(value)]
    return value


def _pieces(text: str) -> Iterator[tuple[str, str | None]]:
    """Text as it stands and what is inside the braces behind it; None behind the last, and the rest if none close."""
    at = 0
    while (opened := text.find(_OPEN, at)) >= 0:
        closed = text.find(_CLOSE, opened + len(_OPEN))
        if closed < 0:
            yield text[at:opened], text[opened:]
            return
        yield text[at:opened], text[opened + len(_OPEN) : closed]
        at = closed + len(_CLOSE)
    yield text[at:], None


def _parts(inner: str) -> tuple[str, str, str | None]:
    """Name, steps and form of what is inside the braces; None for no form."""
    head, bar, form = inner.partition("|")
    line = " ".join(head.split())
    name = _NAME.match(line)[0]  # type: ignore[index]  # it matches anything, if only its beginning
    return name, line[len(name) :].lstrip(), form.strip() if bar else None


def _problem(inner: str) -> str | None:
    """The rest of the sentence about a field that holds `{{inner}}`; None if it can be filled in."""
    if inner.startswith(_OPEN):
        return f"has a {_shown(inner)} that nothing closes; write {{{{ {_NAMES[0]} }}}}"
    shown = _shown(f"{_OPEN}{inner}{_CLOSE}")
    name, steps, form = _parts(inner)
    if name not in _NAMES:
        return f"has {shown}, and {name[:_SHOWN_CHARS]!r} is not known; use {', '.join(_NAMES[:-1])} or {_NAMES[-1]}"
    if name == "job_id" and (steps or form is not None):
        return f"has {shown}, and job_id takes nothing behind it; write {{{{ job_id }}}}"
    if name == "scheduled_date" and form is not None:
        return f"has {shown}, and scheduled_date has a form already; write {{{{ scheduled_at | … }}}}"
    if "".join(step[0] for step in _STEP.finditer(steps)) != steps:
        return f"has {shown}; behind {name} write steps such as - 1d, + 6h or - 30m"
    if sum((int(count) * _UNITS[unit] for _, count, unit in _STEP.findall(steps)), timedelta()) > _MAX_MOVE:
        return f"has {shown}, which moves by over 100 years; write smaller steps"
    if form is not None:
        return _format_problem(shown, form)
    return None


def _format_problem(shown: str, form: str) -> str | None:
    unknown = [letter for letter in _DIRECTIVE.findall(form) if letter not in _DIRECTIVES]
    if unknown:
        return f"has {shown}, and {'%' + unknown[0]!r} is not known; use %{' %'.join(_DIRECTIVES)}"
    if not form:
        return f"has {shown} with nothing behind the bar; write a form such as %Y-%m-%d"
    return None


def _filled(inner: str, local: datetime, job_id: str) -> str:
    name, steps, form = _parts(inner)
    if name == "job_id":
        return job_id
    zone = local.tzinfo
    for sign, count, unit in _STEP.findall(steps):
        move = _UNITS[unit] * int(sign + count)
        if unit == "d":
            # A time that the clock skips on that day is the one behind the gap.
            local = (local + move).astimezone(UTC).astimezone(zone)
        else:
            local = (local.astimezone(UTC) + move).astimezone(zone)
    if name == "scheduled_date":
        form = "%Y-%m-%d"
    if form is None:
        return local.isoformat(timespec="seconds")
    return _DIRECTIVE.sub(lambda directive: _DIRECTIVES[directive[1]](local), form)


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARS else line[: _SHOWN_CHARS - 1] + "…"
