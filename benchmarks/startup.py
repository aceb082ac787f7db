"""Start-up: `penstock --help` must come at once, however busy the machine is."""

from statistics import median

from benchmarks.folders import run_folder
from benchmarks.measure import ProgramFailed, cpu_s, empty_folder
from benchmarks.penstock_job import executable
from benchmarks.report import Comparison, Section, Target
from benchmarks.settings import Settings

METHOD = "CPU seconds, user and system, of `penstock --help`; the median of {repetitions} runs after one that warms up."
REPETITIONS = 11  # CPU time of a fifth of a second is counted to a hundredth at best
LABEL = "CPU seconds of penstock --help"
TARGET = Target(0.3, at_least=False)


def measure(settings: Settings) -> Section:
    """Ask for help many times."""
    section = Section("Start-up", METHOD.format(repetitions=REPETITIONS))
    if not settings.with_penstock:
        section.comparisons = [Comparison(LABEL, None, TARGET, "left out of this run")]
        return section
    log = empty_folder(run_folder("penstock help", 0)) / "log.txt"
    command = [str(executable()), "--help"]
    try:
        cpu_s(command, log)
        seconds = [cpu_s(command, log) for _ in range(REPETITIONS)]
    except ProgramFailed as error:
        print(f"  FAILED\n{error}", flush=True)
        section.comparisons = [Comparison(LABEL, None, TARGET, "Penstock failed")]
        return section
    section.comparisons = [Comparison(LABEL, median(seconds), TARGET, " ".join(f"{value:.2f}" for value in seconds))]
    return section
