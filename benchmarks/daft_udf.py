"""Daft as its documentation shows it: read_parquet, a class with a batch method, write_parquet."""

import daft
import numpy as np

from benchmarks.arguments import program_arguments
from benchmarks.models import FEATURES, ID_COLUMN, MODEL_INPUT, SCORE_COLUMN, open_session


def churn_class(call_rows: int) -> type:
    """The model as a Daft class whose method `score` is called with at most `call_rows` rows.

    Without `max_concurrency` and `use_process`: with them, in each combination, it was measured slower here.
    """

    class Churn:
        def __init__(self, model: str) -> None:
            self._session = open_session(model)

        @daft.method.batch(return_dtype=daft.DataType.float32(), batch_size=call_rows)
        def score(self, *columns: daft.Series) -> np.ndarray:
            features = np.column_stack([column.to_arrow().to_numpy() for column in columns])
            scores: np.ndarray = self._session.run(None, {MODEL_INPUT: features})[0][:, 0]
            return scores

    return daft.cls(Churn)


def main() -> None:
    """Score a folder."""
    args = program_arguments("daft_udf", __doc__).parse_args()
    churn = churn_class(args.call_rows)(str(args.model))
    rows = daft.read_parquet(str(args.rows / "*.parquet"))
    scores = churn.score(*(rows[name] for name in FEATURES)).alias(SCORE_COLUMN)
    rows.select(rows[ID_COLUMN], scores).write_parquet(str(args.result))


if __name__ == "__main__":
    main()
