"""Memory: the peak of a Penstock job must not grow with its input."""

from statistics import median

from benchmarks.data import DataSet, WrongResult, checksum_of_parquet
from benchmarks.folders import run_folder
from benchmarks.measure import PeakMemory, ProgramFailed, empty_folder, peak_memory
from benchmarks.penstock_job import parquet_job, run_command
from benchmarks.report import Comparison, Section, Target
from benchmarks.settings import Settings

METHOD = (
    "The job of Parquet → Parquet on two sizes; the RSS of the command and of all processes it starts, added up every "
    "50 ms (pages that two of them share count twice), and that of the largest process alone. Medians of the rounds."
)
TARGET = Target(1.1, at_least=False)
MIB = 2**20


def measure(settings: Settings) -> Section:
    """Watch Penstock score a small and a large input."""
    section = Section("Memory", METHOD)
    small, large = settings.memory.small, settings.memory.large
    labels = [f"peak of {what} at {large:,} rows / at {small:,} rows" for what in ("all processes", "the largest one")]
    if not settings.with_penstock:
        section.comparisons = [Comparison(label, None, TARGET, "left out of this run") for label in labels]
        return section
    peaks: dict[int, list[PeakMemory]] = {small: [], large: []}
    try:
        for round_number in range(settings.rounds):
            for rows in (small, large):
                peaks[rows].append(_peak(rows, settings.parallelism, check=round_number == 0))
                tree_mib = peaks[rows][-1].tree_bytes / MIB
                print(
                    f"  round {round_number + 1}/{settings.rounds}  {rows:>11,} rows {tree_mib:8,.0f} MiB", flush=True
                )
    except (ProgramFailed, WrongResult) as error:
        print(f"  FAILED\n{error}", flush=True)
        section.comparisons = [Comparison(label, None, TARGET, "Penstock failed") for label in labels]
        return section
    for label, attribute in zip(labels, ("tree_bytes", "process_bytes"), strict=True):
        mib = {rows: [getattr(peak, attribute) / MIB for peak in found] for rows, found in peaks.items()}
        detail = " against ".join(" ".join(f"{value:,.0f}" for value in mib[rows]) for rows in (large, small))
        section.comparisons.append(Comparison(label, median(mib[large]) / median(mib[small]), TARGET, f"{detail} MiB"))
    return section


def _peak(rows: int, parallelism: int, check: bool) -> PeakMemory:
    data = DataSet(rows)
    data.make()
    folder = empty_folder(run_folder("Penstock memory", rows))
    peak = peak_memory(run_command(parquet_job(data, folder, parallelism), folder), folder / "log.txt")
    if check and not checksum_of_parquet(folder / "scores").agrees_with(data.reference()):
        raise WrongResult(f"the result in {folder} is not the scores of {data.folder}")
    return peak
