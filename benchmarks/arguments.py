"""The command line that all measured programs share."""

import argparse
from pathlib import Path


def program_arguments(program: str, description: str | None) -> argparse.ArgumentParser:
    """A parser of `rows model result [--call-rows N]` for `python -m benchmarks.<program>`."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{program}", description=description)
    parser.add_argument("rows", type=Path, help="folder of Parquet files to score")
    parser.add_argument("model", type=Path, help="ONNX file of the model")
    parser.add_argument("result", type=Path, help="folder to write Parquet files to")
    parser.add_argument("--call-rows", type=int, default=1000, help="rows per call of the model (default: 1000)")
    return parser
