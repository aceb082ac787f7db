"""Local specs become jobs: `--set key=value` changes them, and `{{ … }}` in them is filled in as schedules do it."""

import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from launcher.errors import Problem, RequestError
from launcher.request.messages import refused, shown
from launcher.request.reading import load, scalar
from launcher.request.spec import read_body, spec_of
from launcher.templates import check, render
from pipelines.spec import JobSpec

_KEY = re.compile(r"[^.\s=][^.=]*(?:\.[^.\s=][^.=]*)*")
# A name and what may follow it, or one of ours that nothing closes. Other braces are text: '{{1,2},{3,4}}' is an array
# of PostgreSQL.
_TEMPLATE = re.compile(r"\{\{\s*(?:[A-Za-z_]\w*\s*(?:\}\}|[-+|])|(?:scheduled_at|scheduled_date|job_id)\b)")
# Where the machine says which timezone it is in; a link into the database of them.
_LOCALTIME = "/etc/localtime"


def local_spec(
    values: Mapping[str, Any],
    settings: Sequence[str],
    job_id: str,
    scheduled_at: datetime | None = None,
    parallelism: int | None = None,
) -> JobSpec:
    """The job that a local spec asks for.

    Args:
        values: the spec as it was read.
        settings: changes to it, each `key=value`, in order.
        job_id: what `{{ job_id }}` stands for.
        scheduled_at: what `{{ scheduled_at }}` stands for; now, if left out. Without a timezone: in the machine's.
        parallelism: of a job that does not say; None: as `Config` has it.

    Raises:
        RequestError: names every field that is wrong, or the setting.
    """
    zone = local_zone()
    at = scheduled_at or datetime.now(UTC)
    filled = _filled(with_settings(values, settings), at if at.tzinfo else at.replace(tzinfo=zone), zone, job_id)
    return spec_of(filled, parallelism)


def with_settings(values: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """`values`, changed as `--set` says: dotted keys; values as in YAML; null takes out what is there.

    Raises:
        RequestError: a setting is none, or leads nowhere.
    """
    changed = dict(values)
    for setting in settings:
        key, equals, text = setting.partition("=")
        key = key.strip()
        if not equals:
            raise refused(f"--set {shown(setting)} has no value; write --set {key or 'output.path'}=VALUE")
        if not _KEY.fullmatch(key):
            raise refused(f"--set {shown(key)} is no key; write one such as output.path or config.batch_size")
        _set(changed, key, _value(key, text))
    return changed


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    at = ""
    for name in parents:
        at = f"{at}.{name}" if at else name
        inner = values.get(name)
        if inner is not None and not isinstance(inner, Mapping):
            what = "a list" if isinstance(inner, list) else "no mapping"
            raise refused(f"--set {key}: {at} is {what}, and has no {key.removeprefix(at + '.')}; set {at} as a whole")
        # A copy: the caller's mapping stays as it was.
        values[name] = dict(inner or {})
        values = values[name]
    if value is None and last in values:
        del values[last]
    else:
        values[last] = value


def _value(key: str, text: str) -> Any:
    """A value as in YAML: `[a, b]`, `{a: b}` and quoted texts, or one word or number. All else is text as it stands."""
    text = text.strip()
    if text[:1] not in ("[", "{", '"', "'") or text.startswith("{{"):
        return scalar(text)
    try:
        return load(text, f"--set {key}")
    except RequestError as error:
        raise refused(f"{error}; put a text that begins with {text[0]} in quotes of its own") from error
    except (RecursionError, ValueError) as error:
        raise refused(f"--set {key} cannot be read; write it into the spec") from error


def _filled(values: dict[str, Any], at: datetime, zone: tzinfo, job_id: str) -> dict[str, Any]:
    meant = _only_meant(values)
    problems = check(meant)
    if problems:
        raise RequestError([Problem(field, problem) for field, problem in problems])
    filled: dict[str, Any] = _laid_over(values, render(meant, at, zone, job_id))
    return filled


def _only_meant(value: Any) -> Any:
    """`value` with nothing in the place of texts that hold no template."""
    if isinstance(value, Mapping):
        return {key: _only_meant(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_only_meant(each) for each in value]
    return value if isinstance(value, str) and _TEMPLATE.search(value) else None


def _laid_over(value: Any, filled: Any) -> Any:
    """`value` with the texts of `filled`, which is of the same form, in their places."""
    if isinstance(value, Mapping):
        return {key: _laid_over(each, filled[key]) for key, each in value.items()}
    if isinstance(value, list):
        return [_laid_over(each, inner) for each, inner in zip(value, filled, strict=True)]
    return value if filled is None else filled


def local_zone() -> tzinfo:
    """The machine's timezone: TZ, or that of the system; as far as today's offset, where it has no name."""
    names = [os.environ.get("TZ", "").removeprefix(":")]
    names.append(os.path.realpath(_LOCALTIME).partition("/zoneinfo/")[2])
    for name in filter(None, names):
        try:
            return ZoneInfo(name)
        except (OSError, ValueError, KeyError):  # a file that is none, a name with `..`, one that is not known
            continue
    return datetime.now().astimezone().tzinfo or UTC


def read_local(
    path: str | Path,
    settings: Sequence[str],
    job_id: str,
    scheduled_at: datetime | None = None,
    parallelism: int | None = None,
) -> JobSpec:
    """The job that a file of YAML or JSON asks for; further arguments as of `local_spec`.

    Raises:
        RequestError: the file cannot be read, or something in it is wrong.
    """
    return local_spec(read_body(path), settings, job_id, scheduled_at, parallelism)
