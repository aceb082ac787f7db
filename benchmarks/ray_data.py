"""Ray Data as its documentation shows it: read_parquet, map_batches with a class, write_parquet."""

import os

import numpy as np
import pyarrow as pa
import ray
import ray.data

from benchmarks.arguments import program_arguments
from benchmarks.models import FEATURES, ID_COLUMN, MODEL_INPUT, SCORED_SCHEMA, open_session


class Churn:
    """The model, held by an actor; each call scores one batch."""

    def __init__(self, model: str) -> None:
        self._session = open_session(model)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Score a table that holds the id and the features."""
        features = np.column_stack([rows[name].to_numpy() for name in FEATURES])
        scores = self._session.run(None, {MODEL_INPUT: features})[0][:, 0]
        return pa.table([rows[ID_COLUMN], scores], schema=SCORED_SCHEMA)


def main() -> None:
    """Score a folder with a Ray of its own."""
    args = program_arguments("ray_data", __doc__).parse_args()
    ray.init(num_cpus=os.cpu_count(), include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    # Of the batch formats, pyarrow was measured the fastest here: numpy takes twice as long in the actor.
    # The pool of actors is the default one (from 1 up, by load): fixed pools of 1 and 2 were no faster.
    scored = (
        ray.data.read_parquet(str(args.rows))
        .select_columns([ID_COLUMN, *FEATURES])
        .map_batches(Churn, fn_constructor_args=[str(args.model)], batch_size=args.call_rows, batch_format="pyarrow")
    )
    scored.write_parquet(str(args.result))
    ray.shutdown()


if __name__ == "__main__":
    main()
