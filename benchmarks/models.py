"""The churn model as the measured programs hold it: one ONNX Runtime session, called with a fixed number of rows."""

import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pyarrow as pa

from benchmarks.folders import model_file

ID_COLUMN = "customer_id"
FEATURES = ("tenure", "monthly_charges", "total_charges")
MODEL_INPUT = "features"
SCORE_COLUMN = "score"
SCORED_SCHEMA = pa.schema([(ID_COLUMN, pa.int64()), (SCORE_COLUMN, pa.float32())])


def open_session(path: Path | str) -> ort.InferenceSession:
    """Load the model for calls from this thread alone.

    One thread per session: a call of 1,000 rows takes some 20 microseconds, less than it costs to wake a second thread.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def score(session: ort.InferenceSession, columns: list[np.ndarray], call_rows: int) -> np.ndarray:
    """Score n rows given as one float32 column per feature, with calls of `call_rows` rows; the last may be shorter.

    Returns:
        float32 [n]; entry i answers row i.
    """
    features = np.column_stack(columns)
    scores = np.empty(len(features), np.float32)
    for start in range(0, len(features), call_rows):
        stop = start + call_rows
        scores[start:stop] = session.run(None, {MODEL_INPUT: features[start:stop]})[0][:, 0]
    return scores


def score_batch(session: ort.InferenceSession, rows: pa.RecordBatch, call_rows: int) -> pa.RecordBatch:
    """Score `rows` (the id and the features, no nulls), keeping their order; laid out as `SCORED_SCHEMA`."""
    columns = [rows.column(name).to_numpy() for name in FEATURES]
    scores = score(session, columns, call_rows)
    return pa.record_batch([rows.column(ID_COLUMN), pa.array(scores)], schema=SCORED_SCHEMA)


class Picky:
    """The churn model, refusing a whole call for one row that it cannot score: a negative monthly charge.

    Follows Penstock's contract for `flavor: python`; safe to call from several threads, as an ONNX Runtime session is.
    """

    thread_safe = True
    output_schema = pa.schema([(SCORE_COLUMN, pa.float32())])

    def load(self) -> None:
        """Open the model of the benchmark folder."""
        self._session = open_session(model_file())

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Score all of `rows` in one call.

        Raises:
            ValueError: a row has a negative monthly charge; nothing was scored.
        """
        columns = [rows.column(name).to_numpy(zero_copy_only=False) for name in FEATURES]
        monthly_charges = columns[FEATURES.index("monthly_charges")]
        if monthly_charges.min() < 0:
            raise ValueError("monthly_charges is negative")
        scores = score(self._session, columns, call_rows=rows.num_rows)
        return pa.record_batch([pa.array(scores)], schema=self.output_schema)


class _Summing:
    """A model whose answers are nothing to speak of: what its calls take is."""

    output_schema = pa.schema([(SCORE_COLUMN, pa.float64())])

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Answer with the first feature, when the time has passed."""
        self.spend(rows.num_rows)
        return pa.record_batch([rows.column(FEATURES[0]).cast(pa.float64())], schema=self.output_schema)

    def spend(self, rows: int) -> None:
        """Take the time of a call."""
        raise NotImplementedError


class SlowRows(_Summing):
    """5 ms for each row, waiting, as for something elsewhere."""

    def spend(self, rows: int) -> None:
        """Wait."""
        time.sleep(0.005 * rows)


class SlowCalls(_Summing):
    """0.4 s for each call, however many rows it has."""

    def spend(self, rows: int) -> None:
        """Wait."""
        time.sleep(0.4)


class Computing(_Summing):
    """Some 50 µs of Python for each row."""

    def spend(self, rows: int) -> None:
        """Compute."""
        for _ in range(rows):
            sum(range(2000))
