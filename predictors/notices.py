"""Notices: what is said about data that was passed over, unified, rounded or clamped while a job goes on.

A notice is no failure and no reject: every row is there, but something about it is worth a person's look. The same list
is shown by a plan, the summary and the job's JSON. Those found while running are counted in the notes of the ledger, so
that no crash loses them and no retry counts them twice.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

# Codes of what is counted value by value: one of them is a number worth saying, too.
_COUNTED = frozenset({"not_finite"})


@dataclass(frozen=True)
class Notice:
    """One thing worth knowing about a job's data.

    Args:
        code: a stable word for machines, in snake case, such as `files_passed_over` or `not_finite`.
        message: one line for people: what, where (the column, the file) and, where there is one, the remedy. Without
            the count, so that equal notices of many spans can be added up.
        count: of files, rows or values, whichever the message speaks of.
    """

    code: str
    message: str
    count: int = 1

    def __post_init__(self) -> None:
        # Names of files and columns may hold what neither a line nor a database's JSON can.
        text = self.message.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
        object.__setattr__(self, "message", " ".join(text.split()))

    def to_json(self) -> dict[str, Any]:
        """The notice as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Notice":
        """The notice that `to_json` wrote."""
        return cls(values["code"], values["message"], values["count"])

    def __str__(self) -> str:
        """The notice for people, on one line."""
        if self.count == 1 and self.code not in _COUNTED:
            return self.message
        return f"{self.message} ({self.count:,} {'time' if self.count == 1 else 'times'})"


def merged(notices: Iterable[Notice]) -> tuple[Notice, ...]:
    """Equal notices as one, their counts added, in the order in which each came first."""
    found: dict[tuple[str, str], Notice] = {}
    for notice in notices:
        key = (notice.code, notice.message)
        known = found.get(key)
        found[key] = notice if known is None else replace(known, count=known.count + notice.count)
    return tuple(found.values())
