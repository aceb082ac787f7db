"""ONNX models, run by ONNX Runtime: one tensor of features, or one input per column; any number of outputs."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pyarrow as pa
import pyarrow.compute as pc

from predictors.errors import ModelNotLoadable, SchemaMismatch

# ONNX element types (onnx.proto, TensorProto.DataType), as ONNX Runtime spells them, that Arrow columns can hold.
_ARROW_TYPES: dict[str, pa.DataType] = {
    "tensor(float)": pa.float32(),
    "tensor(double)": pa.float64(),
    "tensor(float16)": pa.float16(),
    "tensor(int8)": pa.int8(),
    "tensor(int16)": pa.int16(),
    "tensor(int32)": pa.int32(),
    "tensor(int64)": pa.int64(),
    "tensor(uint8)": pa.uint8(),
    "tensor(uint16)": pa.uint16(),
    "tensor(uint32)": pa.uint32(),
    "tensor(uint64)": pa.uint64(),
    "tensor(bool)": pa.bool_(),
    "tensor(string)": pa.string(),
}


@dataclass(frozen=True)
class _Output:
    """One output of the model: `width` values a row, or one (None)."""

    name: str
    type: pa.DataType
    width: int | None

    @property
    def field(self) -> pa.Field:
        return pa.field(self.name, self.type if self.width is None else pa.list_(self.type, self.width))

    def column(self, tensor: np.ndarray[Any, Any]) -> pa.Array:
        """The output's tensor as a column.

        Raises:
            ValueError: a row has another number of values than the model declares.
        """
        rows = tensor.shape[0] if tensor.ndim else 1
        if tensor.size != rows * (self.width or 1):
            raise ValueError(
                f"model output {self.name!r} has shape {list(tensor.shape)}, not {self.width or 1} value(s) a row"
            )
        values = pa.array(tensor.reshape(-1), type=self.type)
        return values if self.width is None else pa.FixedSizeListArray.from_arrays(values, self.width)


@dataclass
class OnnxPredictor:
    """Scores with an ONNX file.

    A model with one input takes all features as one tensor [n, k], k from the `features` of the spec or, without
    them, the column of the input's name. A model with several inputs takes one column each, [n] or [n, 1]: the
    columns named by `features`, in the order of the inputs, or those named like the inputs.

    Args:
        path: the model file.
        features: columns that feed the model; None: those named like its inputs.
        pass_nulls: null features may come; they arrive as NaN, which only float inputs can hold.
    """

    path: str
    features: tuple[str, ...] | None = None
    pass_nulls: bool = False
    thread_safe: bool = field(default=True, init=False)
    _session: ort.InferenceSession | None = field(default=None, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "features": self.features, "pass_nulls": self.pass_nulls}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @property
    def input_schema(self) -> pa.Schema:
        """The feature columns under the tensors' element types."""
        return self._input_schema

    @property
    def output_schema(self) -> pa.Schema:
        """One column per model output, named after it; [n, k] outputs are fixed-size lists of k."""
        return self._output_schema

    def load(self) -> None:
        """Open the session.

        Raises:
            ModelNotLoadable: no such file, or not an ONNX model that this runtime can run.
            SchemaMismatch: the inputs cannot be fed from the features.
        """
        if not Path(self.path).is_file():
            raise ModelNotLoadable(f"model {self.path}: there is no such file")
        options = ort.SessionOptions()
        # Rows are spread over the pool's threads; a call that spreads itself, too, only makes them wait for each other.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Warnings of the graph optimizer say nothing that a person could act on; errors are raised.
        options.log_severity_level = 4
        try:
            session = ort.InferenceSession(os.fspath(self.path), options, providers=ort.get_available_providers())
        except Exception as error:
            reason = " ".join(str(error).split())
            raise ModelNotLoadable(f"model {self.path} is not a readable ONNX model: {reason}") from error
        self._bind(session)
        self._session = session

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Score `rows` in one call of the session."""
        return self.prepare(rows)(0, rows.num_rows)

    def prepare(self, rows: pa.RecordBatch) -> Callable[[int, int], pa.RecordBatch]:
        """Lay out all of `rows` as tensors once; the calls take slices of them."""
        session = self._session
        if session is None:
            raise ModelNotLoadable(f"model {self.path} was not loaded")
        tensors = {name: self._tensor(rows, columns, flat) for name, columns, flat in self._feeds}
        names, outputs, schema, fixed = self._output_names, self._outputs, self._output_schema, self._fixed_rows

        def call(start: int, stop: int) -> pa.RecordBatch:
            feed = {name: tensor[start:stop] for name, tensor in tensors.items()}
            if fixed is not None:
                feed = {name: _padded(tensor, fixed) for name, tensor in feed.items()}
            answers = session.run(names, feed)
            if fixed is not None:
                answers = [answer[: stop - start] for answer in answers]
            columns = [output.column(answer) for output, answer in zip(outputs, answers, strict=True)]
            return pa.RecordBatch.from_arrays(columns, schema=schema)

        return call

    def _tensor(self, rows: pa.RecordBatch, columns: tuple[int, ...], flat: bool) -> np.ndarray[Any, Any]:
        if flat or len(columns) == 1:
            column = _values(rows.column(columns[0]))
            return column if flat else column.reshape(-1, 1)
        tensor = np.empty((rows.num_rows, len(columns)), dtype=rows.schema.field(columns[0]).type.to_pandas_dtype())
        for place, index in enumerate(columns):
            tensor[:, place] = _values(rows.column(index))
        return tensor

    def _bind(self, session: ort.InferenceSession) -> None:
        """Match the session's inputs with the features and learn its outputs."""
        inputs = session.get_inputs()
        types = [self._arrow_type("input", tensor) for tensor in inputs]
        widths = [self._width("input", tensor) for tensor in inputs]
        features = self.features
        if len(inputs) == 1:
            features = features or (inputs[0].name,)
            if widths[0] is not None and widths[0] != len(features):
                raise SchemaMismatch(
                    f"model {self.path} takes {widths[0]} features a row in its input {inputs[0].name!r}, "
                    f"but model.features names {len(features)}: {', '.join(features)}"
                )
            flat = len(inputs[0].shape) == 1
            if flat and len(features) > 1:
                raise SchemaMismatch(
                    f"model {self.path} takes one value a row, but model.features names {len(features)}; name one"
                )
            feeds = [(inputs[0].name, tuple(range(len(features))), flat)]
            fields = [pa.field(name, types[0]) for name in features]
        else:
            features = features or tuple(tensor.name for tensor in inputs)
            if len(features) != len(inputs):
                raise SchemaMismatch(
                    f"model {self.path} has {len(inputs)} inputs ({', '.join(tensor.name for tensor in inputs)}), "
                    f"but model.features names {len(features)}; name one for each, in this order, or leave it out"
                )
            for tensor, width in zip(inputs, widths, strict=True):
                if width not in (None, 1):
                    raise SchemaMismatch(
                        f"model {self.path} takes {width} values a row in its input {tensor.name!r}; "
                        f"with several inputs each takes one column"
                    )
            feeds = [(tensor.name, (i,), len(tensor.shape) == 1) for i, tensor in enumerate(inputs)]
            fields = [pa.field(name, type_) for name, type_ in zip(features, types, strict=True)]
        if self.pass_nulls:
            for column in fields:
                if not pa.types.is_floating(column.type):
                    raise SchemaMismatch(
                        f"model.nulls is 'pass', but the model takes column {column.name!r} as {column.type}, "
                        f"which has no NaN; use 'reject'"
                    )
        self._feeds = feeds
        self._input_schema = pa.schema(fields)
        self._fixed_rows = self._declared_rows(inputs)
        self._learn_outputs(session)

    def _learn_outputs(self, session: ort.InferenceSession) -> None:
        declared = session.get_outputs()
        types = [self._arrow_type("output", tensor) for tensor in declared]
        shapes = [tensor.shape for tensor in declared]
        if any(len(shape) > 1 and not isinstance(shape[-1], int) for shape in shapes):
            shapes = self._probe(session, shapes)
        widths = []
        for tensor, shape in zip(declared, shapes, strict=True):
            widths.append(None if len(shape) < 2 or shape[1:] == [1] else int(np.prod(shape[1:])))
            if any(not isinstance(size, int) for size in shape[1:]):
                raise SchemaMismatch(f"model {self.path}: output {tensor.name!r} has a row of unknown length {shape}")
        self._outputs = [_Output(t.name, type_, width) for t, type_, width in zip(declared, types, widths, strict=True)]
        self._output_names = [output.name for output in self._outputs]
        self._output_schema = pa.schema([output.field for output in self._outputs])

    def _probe(self, session: ort.InferenceSession, shapes: list[list[Any]]) -> list[list[Any]]:
        """Learn the outputs' widths from a call with one row of zeros, where the model does not declare them."""
        zeros = pa.RecordBatch.from_arrays(
            [
                pa.array([""] if pa.types.is_string(f.type) else np.zeros(1, f.type.to_pandas_dtype()))
                for f in self._input_schema
            ],
            schema=self._input_schema,
        )
        feed = {name: self._tensor(zeros, columns, flat) for name, columns, flat in self._feeds}
        if self._fixed_rows is not None:
            feed = {name: _padded(tensor, self._fixed_rows) for name, tensor in feed.items()}
        try:
            answers = session.run(None, feed)
        except Exception:
            # A model may refuse zeros; then its declared shapes are all there is, and the caller says which is missing.
            return shapes
        return [list(answer.shape) for answer in answers]

    def _arrow_type(self, side: str, tensor: Any) -> pa.DataType:
        if tensor.type not in _ARROW_TYPES:
            hint = "; export a classifier with zipmap=False" if tensor.type.startswith("seq(map") else ""
            raise SchemaMismatch(
                f"model {self.path}: {side} {tensor.name!r} is {tensor.type}, which is not a column{hint}"
            )
        return _ARROW_TYPES[tensor.type]

    def _width(self, side: str, tensor: Any) -> int | None:
        """Values a row, where the model declares them."""
        shape = tensor.shape
        if len(shape) > 2:
            raise SchemaMismatch(
                f"model {self.path}: {side} {tensor.name!r} has shape {shape}; [rows] or [rows, features] is known"
            )
        if len(shape) < 2:
            return 1
        return shape[1] if isinstance(shape[1], int) else None

    def _declared_rows(self, inputs: list[Any]) -> int | None:
        """The number of rows that the model was exported for, where it is fixed: calls are padded to it."""
        sizes = {tensor.shape[0] for tensor in inputs if tensor.shape and isinstance(tensor.shape[0], int)}
        return max(sizes) if sizes and min(sizes) > 0 else None


def _values(column: pa.Array) -> np.ndarray[Any, Any]:
    """A column for ONNX Runtime, without a copy where it has no nulls; a null becomes NaN."""
    if pa.types.is_string(column.type):
        return np.asarray(column.to_pylist(), dtype=object)
    if column.null_count:
        column = pc.fill_null(column, float("nan"))
    return column.to_numpy(zero_copy_only=False)


def _padded(tensor: np.ndarray[Any, Any], rows: int) -> np.ndarray[Any, Any]:
    """`tensor` with its last row repeated up to `rows`."""
    missing = rows - tensor.shape[0]
    if missing < 0:
        raise SchemaMismatch(
            f"the model was exported for calls of {rows} row(s); set config.batch_size to {rows} or less"
        )
    return tensor if missing == 0 else np.concatenate([tensor, np.repeat(tensor[-1:], missing, axis=0)])
