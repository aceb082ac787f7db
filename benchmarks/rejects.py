"""Rejects: a few rows that the model refuses must cost little."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.data import MI, Checksum, DataSet, WrongResult
from benchmarks.files import parquet_program
from benchmarks.penstock_job import PICKY_MODEL, parquet_job, run_command
from benchmarks.race import Program, Trial, race
from benchmarks.report import Comparison, Section, Target, compare_speed
from benchmarks.settings import Settings

BAD_ROWS_PER_MI = 10
MORE_ROUNDS = 2  # a tenth more or less is finer than what the other benchmarks must tell apart
METHOD = (
    "Parquet → Parquet with a Python predictor that refuses a call of 1,000 rows for one bad row in it; "
    f"{BAD_ROWS_PER_MI} bad rows in each {MI:,}, spread at random, against none. The ratio is that of the times."
)
LABEL = f"time with {BAD_ROWS_PER_MI} bad rows in {MI:,} / with none"
TARGET = Target(1.1, at_least=False)
CLEAN = "Penstock, picky model, no bad row"
BAD = "Penstock, picky model, bad rows"


def rejected_rows(folder: Path) -> int:
    """Count the rows in all Parquet or JSON lines files below `folder`."""
    parquet: int = sum(pq.ParquetFile(file).metadata.num_rows for file in folder.rglob("*.parquet"))
    return parquet + sum(len(file.read_text().splitlines()) for file in folder.rglob("*.jsonl"))


def _program(name: str, bad_rows_per_mi: int, settings: Settings) -> Program:
    program = parquet_program(
        name,
        settings.files,
        settings.rounds + MORE_ROUNDS,
        lambda data, folder: [
            run_command(parquet_job(data, folder, settings.parallelism, model=PICKY_MODEL), folder),
        ],
        bad_rows_per_mi,
    )

    def counting_rejects(trial: Trial) -> Trial:
        def result() -> Checksum:
            found, expected = rejected_rows(trial.folder / "rejects"), DataSet(trial.rows, bad_rows_per_mi).bad_rows
            if found != expected:
                raise WrongResult(f"{trial.folder / 'rejects'} holds {found} rows, not {expected}")
            return trial.result()

        return replace(trial, result=result)

    return replace(program, small=counting_rejects(program.small), large=counting_rejects(program.large))


def measure(settings: Settings) -> Section:
    """Race Penstock on clean rows against Penstock on rows of which a few are bad."""
    section = Section("Rejects", METHOD)
    if not settings.with_penstock:
        section.comparisons = [Comparison(LABEL, None, TARGET, "left out of this run")]
        return section
    timings = race([_program(CLEAN, 0, settings), _program(BAD, BAD_ROWS_PER_MI, settings)], settings.patience_s)
    section.timings = list(timings.values())
    # Speed of the clean over speed of the bad is the time with bad rows over the time without.
    section.comparisons = [compare_speed(LABEL, timings[CLEAN], timings[BAD], TARGET)]
    return section
