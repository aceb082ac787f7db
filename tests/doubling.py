"""The simplest model, in a module that imports little: a child process has it in a second."""

from dataclasses import dataclass, field

import pyarrow as pa

SCORES = pa.schema([pa.field("score", pa.float64())])


@dataclass
class Doubler:
    """Scores `value` with twice its value; refuses negative ones, as a model does: without saying which."""

    thread_safe: bool = field(default=True, init=False)
    input_schema: pa.Schema = field(default=pa.schema([pa.field("value", pa.float64())]), init=False)
    output_schema: pa.Schema = field(default=SCORES, init=False)

    def load(self) -> None:
        """Nothing to load."""

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Twice the value of each row."""
        values = rows.column("value").to_numpy(zero_copy_only=False)
        if (values < 0).any():
            raise ValueError("a value is negative")
        return pa.RecordBatch.from_arrays([pa.array(values * 2)], schema=SCORES)
