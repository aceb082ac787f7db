"""Let programs score the same rows in turns, and tell their speed from two sizes, start-up taken out."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.data import Checksum, WrongResult
from benchmarks.folders import penstock_home
from benchmarks.measure import Command, ProgramFailed, empty_folder, wait_for_quiet, wall_s


def _nothing() -> None:
    return


@dataclass(frozen=True)
class Trial:
    """One program on one number of rows."""

    rows: int
    folder: Path  # emptied before each run
    commands: Callable[[], Sequence[Command]]  # run side by side; asked for once `folder` is empty
    result: Callable[[], Checksum]
    expected: Checksum
    prepare: Callable[[], None] = _nothing  # not timed

    def run(self, check: bool, patience_s: float) -> tuple[float, bool]:
        """Give the seconds of one run, and whether the machine was quiet when it began.

        Raises:
            ProgramFailed: it ended with an error.
            WrongResult: `check` was asked for, and the result is not what it should be.
        """
        empty_folder(self.folder)
        shutil.rmtree(penstock_home(), ignore_errors=True)
        self.prepare()
        commands = self.commands()
        os.sync()  # the last program's dirty pages are not this one's to write
        quiet = wait_for_quiet(patience_s)
        seconds = wall_s(commands, self.folder / "log.txt")
        if check:
            result = self.result()
            if not result.agrees_with(self.expected):
                raise WrongResult(f"result in {self.folder} adds up to {result}, not to {self.expected}")
        return seconds, quiet


@dataclass(frozen=True)
class Program:
    """A contender: a name and the same work in two sizes."""

    name: str
    small: Trial
    large: Trial
    rounds: int


@dataclass
class Timing:
    """The seconds of each run of a program, and what follows from them."""

    program: Program
    small_s: list[float] = field(default_factory=list)
    large_s: list[float] = field(default_factory=list)
    busy_starts: int = 0  # runs that began while other programs used the machine
    failure: str | None = None

    @property
    def seconds_per_row(self) -> float | None:
        """Seconds of the large size less those of the small one, by row; medians. None if unknown or lost in noise."""
        if self.failure or not self.large_s:
            return None
        seconds = median(self.large_s) - median(self.small_s)
        return seconds / (self.program.large.rows - self.program.small.rows) if seconds > 0 else None

    @property
    def rows_per_s(self) -> float | None:
        """Speed once started."""
        return 1 / self.seconds_per_row if self.seconds_per_row else None

    @property
    def seconds_per_row_by_round(self) -> list[float]:
        """The same from the two runs of each round alone: how far noise goes."""
        rows = self.program.large.rows - self.program.small.rows
        return [(large - small) / rows for small, large in zip(self.small_s, self.large_s, strict=False)]

    @property
    def startup_s(self) -> float | None:
        """What is left of the small size when its rows are taken out."""
        if self.seconds_per_row is None:
            return None
        return median(self.small_s) - self.program.small.rows * self.seconds_per_row


def race(programs: Sequence[Program], patience_s: float) -> dict[str, Timing]:
    """Run all programs in turns, round by round, so that a slow minute of the machine hits each of them.

    Each runs its small size once before, untimed, so that none is timed reading its libraries from the disk. That
    result and the first one of the large size are checked. A program that fails, or whose result is wrong, is out; the
    others go on. Each run waits, at most `patience_s`, until other programs leave the machine alone.
    """
    timings = {program.name: Timing(program) for program in programs}
    for timing in timings.values():
        _run(timing, timing.program.small, "warm-up", check=True, patience_s=0)
    for round_number in range(max(program.rounds for program in programs)):
        for timing in timings.values():
            program = timing.program
            if round_number < program.rounds:
                name = f"round {round_number + 1}/{program.rounds}"
                timing.small_s += _run(timing, program.small, name, check=False, patience_s=patience_s)
                timing.large_s += _run(timing, program.large, name, check=round_number == 0, patience_s=patience_s)
    return timings


def _run(timing: Timing, trial: Trial, name: str, check: bool, patience_s: float) -> list[float]:
    """Give the seconds of one run; none, if the program is out or comes to be."""
    if timing.failure:
        return []
    label = f"  {name}  {timing.program.name:44} {trial.rows:>11,} rows"
    try:
        seconds, quiet = trial.run(check, patience_s)
    except (ProgramFailed, WrongResult) as error:
        timing.failure = str(error)
        print(f"{label}  FAILED\n{error}", flush=True)
        return []
    shutil.rmtree(trial.folder / "scores", ignore_errors=True)  # else a full run would keep gigabytes
    timing.busy_starts += not quiet and patience_s > 0
    print(f"{label} {seconds:8.2f} s{'' if quiet else '  (machine busy)'}", flush=True)
    return [seconds]
