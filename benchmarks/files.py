"""Parquet to Parquet: Penstock against plain loops, stock Beam, Ray Data and Daft."""

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.data import DataSet, checksum_of_parquet
from benchmarks.folders import model_file, run_folder
from benchmarks.measure import Command, python
from benchmarks.penstock_job import parquet_job, run_command
from benchmarks.race import Program, Trial, race
from benchmarks.report import Section, Target, compare_speed
from benchmarks.settings import Settings, Sizes

CALL_ROWS = 1000
LARGE_CALL_ROWS = 65_536

METHOD = (
    "Parquet (an int64 id and three float32 features; row groups of 1,048,576 rows, four to a file; in the page cache) "
    f"→ ONNX perceptron 3-32-1, called with {CALL_ROWS:,} rows unless another number is named → Parquet (id, score). "
    "The loops are pyarrow, ONNX Runtime with one thread, and one ParquetWriter per process, with defaults."
)


def parquet_program(
    name: str,
    sizes: Sizes,
    rounds: int,
    commands: Callable[[DataSet, Path], Sequence[Command]],
    bad_rows_per_mi: int = 0,
) -> Program:
    """A contender that scores a data set into the folder `scores` of the folder it is given; makes the data."""

    def trial(rows: int) -> Trial:
        data = DataSet(rows, bad_rows_per_mi)
        data.make()
        data.warm()
        folder = run_folder(name, rows)
        return Trial(
            rows=rows,
            folder=folder,
            commands=lambda: commands(data, folder),
            result=lambda: checksum_of_parquet(folder / "scores"),
            expected=data.reference(),
        )

    return Program(name, trial(sizes.small), trial(sizes.large), rounds)


def penstock(name: str, settings: Settings, parallelism: int, call_rows: int = CALL_ROWS) -> Program:
    """Penstock with its defaults but for `parallelism` and `batch_size`."""
    return parquet_program(
        name,
        settings.files,
        settings.rounds,
        lambda data, folder: [run_command(parquet_job(data, folder, parallelism, call_rows), folder)],
    )


def peer(
    name: str,
    module: str,
    sizes: Sizes,
    rounds: int,
    call_rows: int = CALL_ROWS,
    shares: int = 1,
    flags: Sequence[str] = (),
) -> Program:
    """`python -m benchmarks.<module>`, as `shares` processes side by side."""

    def commands(data: DataSet, folder: Path) -> list[list[str]]:
        command = python(module, data.folder, model_file(), folder / "scores", "--call-rows", str(call_rows), *flags)
        if shares == 1:
            return [command]
        return [[*command, "--share", str(share), "--shares", str(shares)] for share in range(shares)]

    return parquet_program(name, sizes, rounds, commands)


def measure(settings: Settings) -> Section:
    """Race all programs on the same files."""
    sizes, rounds, parallelism = settings.files, settings.rounds, settings.parallelism
    ours = f"Penstock, parallelism {parallelism}"
    ours_alone = "Penstock, parallelism 1"
    ours_large = f"{ours}, calls of {LARGE_CALL_ROWS:,}"
    programs = [
        peer("two plain loops", "loops", sizes, rounds, shares=2),
        peer("one plain loop", "loops", sizes, rounds),
        peer("Daft", "daft_udf", sizes, rounds),
        peer(f"Daft, calls of {LARGE_CALL_ROWS:,}", "daft_udf", sizes, rounds, LARGE_CALL_ROWS),
        # A minute and more each: long enough to even out what the machine does besides.
        peer("Ray Data", "ray_data", sizes, rounds=1),
        peer("stock Beam", "stock_beam", settings.row_elements, rounds=1),
    ]
    if settings.with_penstock:
        programs[1:1] = [penstock(ours, settings, parallelism)]
        programs[3:3] = [penstock(ours_alone, settings, parallelism=1)]
        programs[5:5] = [penstock(ours_large, settings, parallelism, LARGE_CALL_ROWS)]
    timings = race(programs, settings.patience_s)

    comparisons = [
        compare_speed(f"{our_name} / {their_name}", timings.get(our_name), timings[their_name], Target(bound))
        for our_name, their_name, bound in [
            (ours, "two plain loops", 0.8),
            (ours_alone, "one plain loop", 0.9),
            (ours, "stock Beam", 40),
            (ours, "Ray Data", 6),
            (ours, "Daft", 2.5),
            (ours_large, f"Daft, calls of {LARGE_CALL_ROWS:,}", 0.8),
        ]
    ]
    return Section("Parquet → Parquet", METHOD, comparisons, list(timings.values()))
