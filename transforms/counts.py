"""Rows accounted for."""

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

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.scored + other.scored, self.rejected + other.rejected, self.skipped + other.skipped)
