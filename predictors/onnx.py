"""ONNX models, run by ONNX Runtime: one tensor of features, or one input per column; any number of outputs."""

import math
import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pyarrow as pa

from predictors.base import PreparedSpan
from predictors.bounds import Bounds, LedElsewhere, at, lies_in
from predictors.errors import ModelNotLoadable, SchemaMismatch, WrongAnswer
from predictors.tensors import ARROW_TYPES, dtype_of
from predictors.weights import external_files

# Providers that are installed but not wanted: one calls a service, the other compiles an engine for minutes on load.
_UNWANTED_PROVIDERS = frozenset({"AzureExecutionProvider", "TensorrtExecutionProvider"})
# Rows of the call that shows what a model answers: a number that is seldom that of anything else in an answer's shape.
_PROBE_ROWS = 7
# The runtime takes a file of such a name for an address in this process's memory (tensorprotoutils.h).
_IN_MEMORY = "*/_ORT_MEM_"


@dataclass(frozen=True)
class _Output:
    """One output of the model: `width` values a row, or one (None)."""

    name: str
    type: pa.DataType
    width: int | None

    @property
    def field(self) -> pa.Field:
        return pa.field(self.name, self.type if self.width is None else pa.list_(self.type, self.width))

    def room(self, rows: int) -> np.ndarray[Any, Any]:
        return np.empty((rows, self.width or 1), dtype_of(self.type))

    def column(self, values: np.ndarray[Any, Any]) -> pa.Array:
        column = pa.array(values.reshape(-1), type=self.type)
        return column if self.width is None else pa.FixedSizeListArray.from_arrays(column, self.width)


class _Span:
    """A span's tensors, and room for what the model answers."""

    def __init__(self, predictor: "OnnxPredictor", session: ort.InferenceSession, rows: pa.RecordBatch) -> None:
        self._run = session.run
        self._rows = rows.num_rows
        self._tensors = list(predictor._tensors(rows).items())
        self._outputs = predictor._outputs
        self._names = [output.name for output in self._outputs]
        self._schema = predictor.output_schema
        self._fixed_rows = predictor._fixed_rows
        self._room = [output.room(rows.num_rows) for output in self._outputs]

    def score(self, start: int, stop: int) -> None:
        """Score in one call of the session, or in as many as its fixed number of rows demands."""
        step = self._fixed_rows or stop - start
        at = start
        while at < stop:
            upto = min(at + step, stop)
            feed = {}
            for name, tensor in self._tensors:
                rows = tensor[at:upto]
                feed[name] = rows if len(rows) == step else _padded(rows, step)
            for place, answer in enumerate(self._run(self._names, feed)):
                room = self._room[place][at:upto]
                if answer.shape != room.shape:
                    answer = self._fitted(place, answer, step)[: upto - at]
                room[...] = answer
            at = upto

    def answers(self, ranges: Sequence[tuple[int, int]]) -> pa.RecordBatch:
        """The scored ranges, without a copy where they are all there is."""
        whole = sum(stop - start for start, stop in ranges) == self._rows
        columns = [
            output.column(room if whole else np.concatenate([room[:0], *(room[start:stop] for start, stop in ranges)]))
            for output, room in zip(self._outputs, self._room, strict=True)
        ]
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)

    def _fitted(self, place: int, answer: np.ndarray[Any, Any], rows: int) -> np.ndarray[Any, Any]:
        """An answer as [n, k]: it may be [n] for one value a row, or [n, 2, 3] for six."""
        width = self._room[place].shape[1]
        if answer.shape[:1] != (rows,) or answer.size != rows * width:
            raise WrongAnswer(
                f"model output {self._names[place]!r} has shape {list(answer.shape)}, "
                f"not {rows} row(s) of {width} value(s)"
            )
        return answer.reshape(rows, width)


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
        within: where the model and the files of its weights have to lie, wherever their names lead; None: anywhere,
            though weights never lie outside of the model's folder.
    """

    path: str
    features: tuple[str, ...] | None = None
    pass_nulls: bool = False
    within: Bounds | None = None
    thread_safe: bool = field(default=True, init=False)
    cpu_bound: bool = field(default=False, init=False, compare=False)
    # Mapped as long as the session lives.
    _weights: list[mmap.mmap | bytes] = field(default_factory=list, init=False, repr=False, compare=False)
    _session: ort.InferenceSession | None = field(default=None, init=False, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "features": self.features,
            "pass_nulls": self.pass_nulls,
            "within": self.within,
        }

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
            ModelNotLoadable: no such file, it lies out of bounds, or it is not an ONNX model that this runtime can run.
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
        providers = [name for name in ort.get_available_providers() if name not in _UNWANTED_PROVIDERS]
        try:
            model = os.fspath(self.path) if self.within is None else self._read(self.within, options)
            session = ort.InferenceSession(model, options, providers=providers)
        except ModelNotLoadable:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())
            raise ModelNotLoadable(f"model {self.path} is not a readable ONNX model: {reason}") from error
        self._bind(session)
        self.cpu_bound = session.get_providers() == ["CPUExecutionProvider"]
        self._session = session

    def _read(self, within: Bounds, options: ort.SessionOptions) -> bytes:
        """The model, read once, and in `options` the files of its weights: the runtime then opens none by its name.

        Raises:
            ModelNotLoadable: one of them lies out of bounds, or where the runtime would open it by its name.
            ValueError: this is no ONNX model.
        """
        try:
            with within.opened(self.path) as fd, open(fd, "rb", closefd=False) as file:
                folder = os.path.dirname(os.readlink(at(fd)))
                model = file.read()
            external = external_files(model)
            if external.others:
                raise ModelNotLoadable(
                    f"model {self.path} keeps tensors of an inner graph in another file, {external.others[0]!r}, "
                    "which a service does not read; save them within the model"
                )
            self._weights = [self._mapped(within, folder, name) for name in external.initializers]
        except LedElsewhere as error:
            raise ModelNotLoadable(f"model {self.path}: {error.strerror}") from error
        if self._weights:
            sizes = [len(file) for file in self._weights]
            options.add_external_initializers_from_files_in_memory(list(external.initializers), self._weights, sizes)
        return model

    def _mapped(self, within: Bounds, folder: str, name: str) -> mmap.mmap | bytes:
        """A file of weights that lies below the model's folder.

        Raises:
            ModelNotLoadable: there is none; whether there is something elsewhere is not told.
        """
        try:
            if name.startswith(_IN_MEMORY):
                raise LedElsewhere
            with within.opened(os.path.join(folder, name)) as fd:
                if not lies_in(os.readlink(at(fd)), folder, below=True):
                    raise LedElsewhere
                return mmap.mmap(fd, 0, prot=mmap.PROT_READ) if os.fstat(fd).st_size else b""
        except OSError as error:
            raise ModelNotLoadable(
                f"model {self.path} wants weights from {name!r}, which is no file in the model's folder"
            ) from error

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Score `rows` in one call of the session."""
        span = self.prepare(rows)
        span.score(0, rows.num_rows)
        return span.answers([(0, rows.num_rows)])

    def prepare(self, rows: pa.RecordBatch) -> PreparedSpan:
        """Lay out all of `rows` as tensors once; the calls take slices of them."""
        if self._session is None:
            raise ModelNotLoadable(f"model {self.path} was not loaded")
        return _Span(self, self._session, rows)

    def _tensors(self, rows: pa.RecordBatch) -> dict[str, np.ndarray[Any, Any]]:
        return {name: _tensor(rows, columns, flat) for name, columns, flat in self._feeds}

    def _bind(self, session: ort.InferenceSession) -> None:
        """Match the session's inputs with the features and learn its outputs."""
        inputs = session.get_inputs()
        if not inputs:
            raise SchemaMismatch(f"model {self.path} has no input")
        features = self._one_tensor(inputs[0]) if len(inputs) == 1 else self._one_input_per_column(inputs)
        types = [self._arrow_type("input", tensor) for tensor in inputs]
        flat = [len(tensor.shape) == 1 for tensor in inputs]
        # The input's name, its columns' places in the schema, and whether it is [n] or [n, k].
        self._feeds: list[tuple[str, tuple[int, ...], bool]]
        if len(inputs) == 1:
            self._feeds = [(inputs[0].name, tuple(range(len(features))), flat[0])]
            types *= len(features)
        else:
            self._feeds = [(tensor.name, (i,), flat[i]) for i, tensor in enumerate(inputs)]
        self._input_schema = pa.schema(zip(features, types, strict=True))
        if self.pass_nulls:
            for column in self._input_schema:
                if not pa.types.is_floating(column.type):
                    raise SchemaMismatch(
                        f"model.nulls is 'pass', but the model takes column {column.name!r} as {column.type}, "
                        f"which has no NaN; use 'reject'"
                    )
        self._fixed_rows = self._declared_rows(inputs)
        self._outputs = self._learn_outputs(session)
        self._output_schema = pa.schema([output.field for output in self._outputs])

    def _one_tensor(self, tensor: Any) -> tuple[str, ...]:
        """The features of a model with one input."""
        features = self.features or (tensor.name,)
        width = self._width(tensor)
        if width is None or width == len(features):
            return features
        if self.features is None:
            raise SchemaMismatch(
                f"model {self.path} takes {width} features a row in its input {tensor.name!r}; "
                f"name {width} columns in model.features"
            )
        raise SchemaMismatch(
            f"model {self.path} takes {width} feature(s) a row in its input {tensor.name!r}, "
            f"but model.features names {len(features)}: {', '.join(features)}"
        )

    def _one_input_per_column(self, inputs: list[Any]) -> tuple[str, ...]:
        """The features of a model with several inputs."""
        features = self.features or tuple(tensor.name for tensor in inputs)
        if len(features) != len(inputs):
            raise SchemaMismatch(
                f"model {self.path} has {len(inputs)} inputs ({', '.join(tensor.name for tensor in inputs)}), "
                f"but model.features names {len(features)}; name one for each, in this order, or leave it out"
            )
        for tensor in inputs:
            width = self._width(tensor)
            if width not in (None, 1):
                raise SchemaMismatch(
                    f"model {self.path} takes {width} values a row in its input {tensor.name!r}; "
                    f"with several inputs each takes one column"
                )
        return features

    def _learn_outputs(self, session: ort.InferenceSession) -> list[_Output]:
        """The outputs, by what the model answers to rows of zeros, or by what it declares if it refuses them."""
        declared = session.get_outputs()
        types = [self._arrow_type("output", tensor) for tensor in declared]
        shapes = self._probe(session) or [tensor.shape for tensor in declared]
        outputs = []
        for tensor, type_, shape in zip(declared, types, shapes, strict=True):
            if not shape or any(not isinstance(size, int) for size in shape[1:]):
                raise SchemaMismatch(
                    f"model {self.path}: output {tensor.name!r} has rows of unknown length {tensor.shape}, "
                    f"and a call with zeros did not show it; export the model with fixed lengths"
                )
            width = math.prod(shape[1:])
            if width == 0:
                raise SchemaMismatch(f"model {self.path}: output {tensor.name!r} has no value a row")
            outputs.append(_Output(tensor.name, type_, None if width == 1 else width))
        return outputs

    def _probe(self, session: ort.InferenceSession) -> list[list[int]] | None:
        """The outputs' shapes in a call with zeros; None when the model refuses them.

        Raises:
            SchemaMismatch: an output is not one answer for each row.
        """
        rows = self._fixed_rows or _PROBE_ROWS
        zeros = [
            pa.array([""] * rows if pa.types.is_string(f.type) else np.zeros(rows, dtype_of(f.type)), f.type)
            for f in self._input_schema
        ]
        feed = self._tensors(pa.RecordBatch.from_arrays(zeros, schema=self._input_schema))
        try:
            answers = session.run(None, feed)
        except Exception:
            # A model may refuse zeros; what it declares is all there is then.
            return None
        shapes = [list(np.shape(answer)) for answer in answers]
        for output, shape in zip(session.get_outputs(), shapes, strict=True):
            if shape[:1] != [rows]:
                raise SchemaMismatch(
                    f"model {self.path}: output {output.name!r} has shape {shape} for {rows} row(s); "
                    f"each row needs an answer of its own"
                )
        return shapes

    def _arrow_type(self, side: str, tensor: Any) -> pa.DataType:
        if tensor.type not in ARROW_TYPES:
            hint = "; export a classifier with zipmap=False" if tensor.type.startswith("seq(map") else ""
            raise SchemaMismatch(
                f"model {self.path}: {side} {tensor.name!r} is {tensor.type}, which is not a column{hint}"
            )
        return ARROW_TYPES[tensor.type]

    def _width(self, tensor: Any) -> int | None:
        """Values a row that an input takes, where the model declares them."""
        shape = tensor.shape
        if len(shape) > 2:
            raise SchemaMismatch(
                f"model {self.path}: input {tensor.name!r} has shape {shape}; [rows] or [rows, features] is known"
            )
        if len(shape) == 1:
            return 1
        # ONNX Runtime tells an input of no declared shape as [].
        return shape[1] if shape and isinstance(shape[1], int) else None

    def _declared_rows(self, inputs: list[Any]) -> int | None:
        """The number of rows that the model was exported for, where it is fixed."""
        sizes = {tensor.shape[0] for tensor in inputs if tensor.shape}
        fixed = {size for size in sizes if isinstance(size, int)}
        if len(fixed) > 1 or 0 in fixed:
            raise SchemaMismatch(
                f"model {self.path} takes {' and '.join(map(str, sorted(fixed)))} rows in its inputs; "
                f"export it for any number, or for one and the same"
            )
        return fixed.pop() if fixed else None


def _tensor(rows: pa.RecordBatch, columns: tuple[int, ...], flat: bool) -> np.ndarray[Any, Any]:
    if flat or len(columns) == 1:
        column = _values(rows.column(columns[0]))
        return column if flat else column.reshape(-1, 1)
    tensor = np.empty((rows.num_rows, len(columns)), dtype_of(rows.schema.field(columns[0]).type))
    for place, index in enumerate(columns):
        tensor[:, place] = _values(rows.column(index))
    return tensor


def _values(column: pa.Array) -> np.ndarray[Any, Any]:
    """A column for ONNX Runtime, without a copy where it has no nulls; a null becomes NaN."""
    return column.to_numpy(zero_copy_only=False)


def _padded(tensor: np.ndarray[Any, Any], rows: int) -> np.ndarray[Any, Any]:
    """`tensor` with its last row repeated up to `rows`."""
    return np.concatenate([tensor, np.repeat(tensor[-1:], rows - len(tensor), axis=0)])
