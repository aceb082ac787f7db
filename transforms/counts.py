"""Rows accounted for."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Counts:
    """Rows of a job or of a part of it; `total = scored + rejected + skipped`."""

    scored: int = 0
    rejected: int = 0
    skipped: int = 0

    @property
    def total(self) -> int:
        """All rows accounted for."""
        return self.scored + self.rejected + self.skipped

    @property
    def reject_ratio(self) -> float:
        """Rejected rows as a share of those that were to be scored; 0 when there were none."""
        asked = self.scored + self.rejected
        return self.rejected / asked if asked else 0.0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.scored + other.scored, self.rejected + other.rejected, self.skipped + other.skipped)


def bearable_ratio(counts: Counts) -> float:
    """A short `max_reject_ratio` that lets these rejects pass: two digits, rounded up."""
    ratio = math.ceil(100 * counts.reject_ratio) / 100
    return min(ratio if ratio >= counts.reject_ratio else ratio + 0.01, 1.0)
