"""Stock Beam as its documentation shows it: ReadFromParquet, RunInference, WriteToParquet, on the FnApiRunner."""

import apache_beam as beam
import numpy as np
from apache_beam.ml.inference.base import KeyedModelHandler, PredictionResult, RunInference
from apache_beam.ml.inference.onnx_inference import OnnxModelHandlerNumpy
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from benchmarks.arguments import program_arguments
from benchmarks.models import FEATURES, ID_COLUMN, SCORE_COLUMN, SCORED_SCHEMA


def to_example(row: dict[str, float]) -> tuple[int, np.ndarray]:
    """A row as its id and its features, float32 [3]."""
    return int(row[ID_COLUMN]), np.array([row[name] for name in FEATURES], np.float32)


def to_scored(keyed: tuple[int, PredictionResult]) -> dict[str, float]:
    """An answer of the model as a row of the result."""
    return {ID_COLUMN: keyed[0], SCORE_COLUMN: float(keyed[1].inference[0])}


def main() -> None:
    """Score a folder."""
    args = program_arguments("stock_beam", __doc__).parse_args()
    model = OnnxModelHandlerNumpy(
        str(args.model),
        providers=["CPUExecutionProvider"],
        min_batch_size=args.call_rows,
        max_batch_size=args.call_rows,
    )
    # Named, because DirectRunner may hand over to another runner.
    with beam.Pipeline(runner=FnApiRunner()) as root:
        rows = root | "Read" >> beam.io.ReadFromParquet(str(args.rows / "*.parquet"), columns=[ID_COLUMN, *FEATURES])
        answers = rows | "Example" >> beam.Map(to_example) | "Infer" >> RunInference(KeyedModelHandler(model))
        scored = answers | "Scored" >> beam.Map(to_scored)
        scored | "Write" >> beam.io.WriteToParquet(
            str(args.result / "scores"), SCORED_SCHEMA, codec="snappy", file_name_suffix=".parquet"
        )


if __name__ == "__main__":
    main()
