"""What was measured, as tables for the screen and for RESULTS.md."""

import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from benchmarks.folders import REPOSITORY
from benchmarks.race import Timing

RESULTS_FILE = REPOSITORY / "benchmarks" / "RESULTS.md"
VERSIONS_SHOWN = (
    "penstock",
    "apache-beam",
    "pyarrow",
    "onnxruntime",
    "numpy",
    "fastapi",
    "uvicorn",
    "adbc-driver-postgresql",
    "ray",
    "daft",
)


@dataclass(frozen=True)
class Target:
    """The bound that a ratio must keep."""

    bound: float
    at_least: bool = True

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}"

    def is_met(self, ratio: float) -> bool:
        """Whether `ratio` keeps the bound."""
        return ratio >= self.bound if self.at_least else ratio <= self.bound


@dataclass(frozen=True)
class Comparison:
    """One ratio and what it should be; None where it could not be measured, and `detail` says why."""

    label: str
    ratio: float | None
    target: Target
    detail: str = ""
    by_round: tuple[float, ...] = ()  # the ratio that each round alone would give

    @property
    def verdict(self) -> str:
        """Met or not, and whether the rounds leave a doubt."""
        if self.ratio is None:
            return "not measured"
        doubt = ", rounds disagree" if len({self.target.is_met(ratio) for ratio in self.by_round}) > 1 else ""
        return ("met" if self.is_met else "NOT MET") + doubt

    @property
    def is_met(self) -> bool:
        return self.ratio is not None and self.target.is_met(self.ratio)

    @property
    def cells(self) -> list[str]:
        """The row of a table: label, ratio, target, met or not, detail."""
        ratio = "–" if self.ratio is None else f"{self.ratio:.2f}"
        return [self.label, ratio, str(self.target), self.verdict, self.detail]


COMPARISON_HEADER = ["comparison", "ratio", "target", "", "measured"]
_HEADING = "\n## "
_INTRODUCTION = """# Recorded results

Written by `python -m benchmarks --record`. Under each heading stand the machine, what is measured, and how.
A speed is the rows by which two sizes differ over the seconds by which their median runs differ, so that
start-up is no part of it. A ratio is ours over theirs, both measured in turns in this same run.
"""
TIMING_HEADER = ["program", "rows", "seconds", "rows", "seconds", "rows/s", "start-up s"]


@dataclass
class Section:
    """The outcome of one benchmark."""

    title: str
    method: str
    comparisons: list[Comparison] = field(default_factory=list)
    timings: list[Timing] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def compare_speed(label: str, ours: Timing | None, theirs: Timing | None, target: Target) -> Comparison:
    """How many times as fast as `theirs` `ours` is, both without their start-up."""
    if ours is None or theirs is None:
        return Comparison(label, None, target, "left out of this run")
    our_s, their_s = ours.seconds_per_row, theirs.seconds_per_row
    if our_s is None or their_s is None:
        return Comparison(label, None, target, "; ".join(_why_unknown(timing) for timing in (ours, theirs)).strip("; "))
    detail = f"{1 / our_s:,.0f} against {1 / their_s:,.0f} rows/s"
    by_round = tuple(
        theirs_s / ours_s
        for ours_s, theirs_s in zip(ours.seconds_per_row_by_round, theirs.seconds_per_row_by_round, strict=False)
        if ours_s > 0
    )
    if len(by_round) > 1:
        detail += f"; by round {min(by_round):.2f} to {max(by_round):.2f}"
    return Comparison(label, their_s / our_s, target, detail, by_round)


def _why_unknown(timing: Timing) -> str:
    if timing.failure:
        return f"{timing.program.name} failed"
    if timing.seconds_per_row is None:
        return f"{timing.program.name} took as long for few rows as for many: too noisy"
    return ""


def noise_note(timings: Sequence[Timing]) -> list[str]:
    """A line that says how many runs others may have slowed; none if no run."""
    runs = sum(len(timing.small_s) + len(timing.large_s) for timing in timings)
    busy = sum(timing.busy_starts for timing in timings)
    return [f"{busy} of {runs} runs began while other programs used the machine"] if busy else []


def timing_cells(timing: Timing) -> list[str]:
    """The row of a table: program, then rows and raw seconds of both sizes, then what follows from them."""

    def seconds(values: Sequence[float]) -> str:
        return " ".join(f"{value:.2f}" for value in values) or "–"

    return [
        timing.program.name,
        f"{timing.program.small.rows:,}",
        seconds(timing.small_s),
        f"{timing.program.large.rows:,}",
        seconds(timing.large_s),
        "failed" if timing.failure else f"{timing.rows_per_s:,.0f}" if timing.rows_per_s else "too noisy",
        f"{timing.startup_s:.1f}" if timing.startup_s is not None else "–",
    ]


def print_section(section: Section) -> None:
    """Print the ratios and timings of `section` in columns."""
    print()
    for header, rows in (
        (TIMING_HEADER, [timing_cells(timing) for timing in section.timings]),
        (COMPARISON_HEADER, [comparison.cells for comparison in section.comparisons]),
    ):
        if rows:
            widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
            for row in [header, *rows]:
                print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
            print()
    for note in [*section.notes, *noise_note(section.timings)]:
        print(f"  {note}")
    print(flush=True)


def record(sections: Sequence[Section], setup: str, file: Path = RESULTS_FILE) -> Path:
    """Write `sections` to RESULTS.md, each with what is needed to judge it, in the place of those of the same titles.

    Sections that were not measured this time stay as they were recorded.
    """
    facts = [*_machine(), setup]
    _, *recorded = file.read_text().split(_HEADING) if file.exists() else [""]
    texts = {text.partition("\n")[0]: text.rstrip("\n") for text in recorded}
    texts |= {section.title: _written(section, facts) for section in sections}
    file.write_text(_INTRODUCTION + "".join(f"{_HEADING}{text}\n" for text in texts.values()))
    return file


def _written(section: Section, facts: Sequence[str]) -> str:
    lines = [section.title, "", *(f"- {fact}" for fact in facts), "", section.method, ""]
    lines += _markdown_table(COMPARISON_HEADER, [comparison.cells for comparison in section.comparisons])
    if section.timings:
        lines += ["", *_markdown_table(TIMING_HEADER, [timing_cells(timing) for timing in section.timings])]
    notes = [*section.notes, *noise_note(section.timings)]
    if notes:
        lines += ["", *(f"- {note}" for note in notes)]
    return "\n".join(lines)


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows]]


def _machine() -> list[str]:
    cpu_lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":", 1)[1].strip() for line in cpu_lines if line.startswith("model name")), "unknown CPU")
    memory_gib = psutil.virtual_memory().total / 2**30
    return [
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {_commit()}",
        f"{os.cpu_count()} cores ({cpu}), {memory_gib:.0f} GiB, {platform.system()} {platform.release()}; "
        f"load average at the end {os.getloadavg()[0]:.1f}",
        f"Python {platform.python_version()}, " + ", ".join(f"{name} {_version(name)}" for name in VERSIONS_SHOWN),
    ]


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "(absent)"


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True).stdout.strip() or "unknown"
