"""Limits that variables of the environment set, for the service and for single jobs alike. Imports next to nothing."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from launcher.errors import SettingWrong

_T = TypeVar("_T", int, float)
_D = TypeVar("_D", int, float, None)

# Variables that are heeded by the service and by single jobs, and what their values may be.
PARALLELISM = ("BATCH_DEFAULT_PARALLELISM", int, 1, 256)
INPUT_ROWS = ("BATCH_MAX_INPUT_ROWS", int, 1, 1e15)


@dataclass(frozen=True)
class LocalSettings:
    """What of the service's settings `penstock run` and `plan` heed, where they are set.

    Args:
        default_parallelism: BATCH_DEFAULT_PARALLELISM, of a job that does not say.
        max_input_rows: BATCH_MAX_INPUT_ROWS, rows of the largest job that is taken; None: any number.
    """

    default_parallelism: int | None = None
    max_input_rows: int | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "LocalSettings":
        """Read the variables.

        Raises:
            SettingWrong: names the variable, its value and the bound.
        """
        given = dict(os.environ if environment is None else environment)
        return cls(number_of(given, *PARALLELISM, None), number_of(given, *INPUT_ROWS, None))


def too_many_rows(rows: int, most: int) -> str:
    """What is said of an input that has more rows than are taken; the rest of a sentence about it."""
    return f"has {rows:,} rows, and at most {most:,} are taken (BATCH_MAX_INPUT_ROWS); score it in pieces"


def number_of(
    given: Mapping[str, str], name: str, kind: Callable[[str], _T], least: float, most: float, default: _D
) -> _T | _D:
    """A variable's value; `default` where it is not set, or empty.

    Raises:
        SettingWrong: it is no number from `least` to `most`.
    """
    text = given.get(name, "").strip()
    if not text:
        return default
    try:
        value = kind(text)
    except ValueError:
        value = kind("-1")
    # Not so of what is no number, either.
    if not least <= value <= most:
        what = "whole number" if kind is int else "number"
        raise SettingWrong(name, f"is {text[:40]!r}; use a {what} from {least:g} to {most:.0f}")
    return value
