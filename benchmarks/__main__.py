"""Measure Penstock beside plain loops and its peers on this machine, and print the ratios.

Exit status 0: every target met; 1: one was missed or could not be measured.
"""

import argparse
import signal
import sys
from collections.abc import Callable

from benchmarks import durations, files, memory, rejects, service, startup, tables
from benchmarks.folders import bench_folder
from benchmarks.report import Section, print_section, record
from benchmarks.settings import Settings
from launcher.forks.processes import adopt_orphans

BENCHMARKS: dict[str, Callable[[Settings], Section]] = {
    "startup": startup.measure,
    "parquet": files.measure,
    "postgres": tables.measure,
    "rejects": rejects.measure,
    "memory": memory.measure,
    "service": service.measure,
    "durations": durations.measure,
}


def main() -> int:
    """Run the benchmarks asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("benchmarks", nargs="*", metavar="BENCHMARK", help=f"{', '.join(BENCHMARKS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="small sizes and one round: does it run, not how fast")
    parser.add_argument("--rounds", type=int, help="runs of each program and size (default: 3; quick: 1)")
    parser.add_argument("--parallelism", type=int, default=4, help="of Penstock (default: 4)")
    parser.add_argument("--peers-only", action="store_true", help="measure the loops and peers without Penstock")
    parser.add_argument(
        "--patience",
        type=float,
        metavar="S",
        help="seconds each run may wait for a quiet machine (default: 20; quick: 0)",
    )
    parser.add_argument("--record", action="store_true", help="write what was measured into benchmarks/RESULTS.md")
    args = parser.parse_args()
    unknown = set(args.benchmarks) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")

    # Ending by signal must still stop the server and the programs.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # So that none of a program's processes escapes.
    adopt_orphans()
    settings = Settings(
        quick=args.quick,
        rounds=args.rounds or (1 if args.quick else 3),
        parallelism=args.parallelism,
        with_penstock=not args.peers_only,
        patience_s=args.patience if args.patience is not None else (0 if args.quick else 20),
    )
    print(f"data, results and logs in {bench_folder()}")
    sections = []
    for name in args.benchmarks or BENCHMARKS:
        print(f"\n== {name}", flush=True)
        sections.append(BENCHMARKS[name](settings))
        print_section(sections[-1])
    comparisons = [comparison for section in sections for comparison in section.comparisons]
    met = sum(comparison.is_met for comparison in comparisons)
    print(f"{met} of {len(comparisons)} targets met")
    if args.record:
        command = "python -m benchmarks " + " ".join(sys.argv[1:])
        print(f"recorded in {record(sections, f'by `{command}`, {settings.rounds} rounds')}")
    return 0 if met == len(comparisons) else 1


if __name__ == "__main__":
    sys.exit(main())
