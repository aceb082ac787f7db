"""ONNX models, run by ONNX Runtime: one tensor of features, or one input per column; any number of outputs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime as ort
import pyarrow as pa

from predictors.base import Features, ModelSpec, Outputs, PreparedSpan
from predictors.bounds import Bounds
from predictors.errors import ModelNotLoadable, SchemaMismatch
from predictors.onnx_file import Opened, open_model
from predictors.onnx_inputs import Inputs, Ragged, lay_out, leaf
from predictors.onnx_outputs import Learned, learn
from predictors.tensors import dtype_of

# Rows of the call that shows what a model answers: a number that is seldom that of anything else in an answer's shape.
_PROBE_ROWS = 7
_Tensor = np.ndarray[Any, Any]


class _Span:
    """A span's tensors, and room for what the model answers."""

    def __init__(self, inputs: Inputs, learned: Learned, session: ort.InferenceSession, rows: pa.RecordBatch) -> None:
        self._run = session.run
        self._rows = rows.num_rows
        self._tensors = list(inputs.tensors(rows).items())
        self._dense = [(name, tensor) for name, tensor in self._tensors if not isinstance(tensor, Ragged)]
        self._ragged = [tensor for _, tensor in self._tensors if isinstance(tensor, Ragged)]
        self._outputs = learned.outputs
        self._names = learned.tensors
        self._places = [self._names.index(output.tensor) for output in learned.outputs]
        self._naming = learned.naming
        self._fixed_rows = inputs.fixed_rows
        self._room = [output.room(rows.num_rows) for output in self._outputs]

    def score(self, start: int, stop: int) -> None:
        """Score in one call of the session, or in as many as its fixed number of rows or the lists' lengths demand."""
        if self._ragged:
            self._score_ragged(start, stop)
            return
        step = self._fixed_rows or stop - start
        for at in range(start, stop, step):
            rows = slice(at, min(at + step, stop))
            self._call({name: tensor[rows] for name, tensor in self._dense}, rows, rows.stop - at, step)

    def _score_ragged(self, start: int, stop: int) -> None:
        """Rows whose lists are of one length are called together: a tensor has no others."""
        for each in self._ragged:
            each.check(start, stop)
        lengths = np.stack([each.lengths[start:stop] for each in self._ragged], axis=1)
        _, groups = np.unique(lengths, axis=0, return_inverse=True)
        for group in range(int(groups.max()) + 1):
            index = start + np.flatnonzero(groups.reshape(-1) == group)
            step = self._fixed_rows or len(index)
            for at in range(0, len(index), step):
                rows = index[at : at + step]
                feed = {
                    name: tensor.rows(rows) if isinstance(tensor, Ragged) else tensor[rows]
                    for name, tensor in self._tensors
                }
                self._call(feed, rows, len(rows), step)

    def _call(self, feed: dict[str, _Tensor], rows: slice | _Tensor, count: int, step: int) -> None:
        if count < step:
            feed = {name: _padded(tensor, step) for name, tensor in feed.items()}
        answers = self._run(self._names, feed)
        for output, place, room in zip(self._outputs, self._places, self._room, strict=True):
            answer = output.fitted(answers[place], step)
            room[rows] = answer if count == step else answer[:count]

    def answers(self, ranges: Sequence[tuple[int, int]]) -> pa.RecordBatch:
        """The scored ranges, without a copy where they are all there is."""
        whole = sum(stop - start for start, stop in ranges) == self._rows
        columns = []
        for output, room in zip(self._outputs, self._room, strict=True):
            columns += output.columns(
                room if whole else np.concatenate([room[:0], *(room[start:stop] for start, stop in ranges)])
            )
        return self._naming.apply(columns)


@dataclass
class OnnxPredictor:
    """Scores with an ONNX file.

    A model with one input takes all features as one tensor [n, k], k from the `features` of the spec or, without
    them, the column of the input's name. A model with several inputs takes one column each, [n] or [n, 1]: the
    columns named by `features`, in the order of the inputs, or those named like the inputs; or several, where
    `features` says which for each input. A column of lists fills k places of an input, or all of them; an input of more
    than two axes takes one column of lists in lists. Where k is open, lists of any length do, and those of one length
    are called together: nothing is padded.

    Args:
        path: the model file.
        features: columns that feed the model, or its inputs; None: those named like its inputs.
        pass_nulls: null features may come; they arrive as NaN, which only float inputs can hold.
        within: where the model and the files of its weights have to lie, wherever their names lead; None: anywhere,
            though weights never lie outside of the model's folder.
        outputs: which of its outputs become columns, and what these are called; None: all.
    """

    path: str
    features: Features = None
    pass_nulls: bool = False
    within: Bounds | None = None
    outputs: Outputs = None
    thread_safe: bool = field(default=True, init=False)
    cpu_bound: bool = field(default=False, init=False, compare=False)
    # The types of the columns that it was bound to; None before.
    _columns: pa.Schema | None = field(default=None, init=False, repr=False, compare=False)
    _opened: Opened | None = field(default=None, init=False, repr=False, compare=False)
    _inputs: Inputs = field(default=Inputs((), pa.schema([]), None), init=False, repr=False, compare=False)
    _learned: Learned | None = field(default=None, init=False, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        named = {name: getattr(self, name) for name in ("path", "features", "pass_nulls", "within", "outputs")}
        return {"named": named, "columns": self._columns}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state["named"])  # type: ignore[misc]
        self._columns = state["columns"]

    @property
    def input_schema(self) -> pa.Schema:
        """The feature columns under the tensors' element types, or lists of them."""
        return self._inputs.schema

    @property
    def output_schema(self) -> pa.Schema:
        """One column per model output, named after it, or as `outputs` says; [n, k] outputs are fixed-size lists of k.

        Maps of a classifier are a column `prob_<class>` for each class.
        """
        return self._known().naming.schema

    def load(self) -> None:
        """Open the session.

        Raises:
            ModelNotLoadable: no such file, it lies out of bounds, or it is not an ONNX model that this runtime can run.
            SchemaMismatch: the inputs cannot be fed from the features.
        """
        opened = open_model(self.path, self.within)
        self._opened, self._learned = opened, None
        self.cpu_bound = opened.session.get_providers() == ["CPUExecutionProvider"]
        self._inputs = self._laid_out(self._columns)
        self._check_nulls(self._inputs)
        if self._columns is not None:
            self._known()

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Score `rows` in one call of the session."""
        span = self.prepare(rows)
        span.score(0, rows.num_rows)
        return span.answers([(0, rows.num_rows)])

    def prepare(self, rows: pa.RecordBatch) -> PreparedSpan:
        """Lay out all of `rows` as tensors once; the calls take slices of them."""
        return _Span(self._inputs, self._known(), self._file().session, rows)

    def bind(self, columns: pa.Schema) -> None:
        """Fit the model to the columns of the input, whose types say which of them are lists."""
        inputs = self._laid_out(columns)
        self._columns = pa.schema(
            [columns.field(name) for name in dict.fromkeys(inputs.schema.names) if columns.names.count(name) == 1]
        ).remove_metadata()
        if inputs != self._inputs:
            self._inputs, self._learned = inputs, None
        self._check_nulls(inputs)

    def _laid_out(self, columns: pa.Schema | None) -> Inputs:
        return lay_out(self.path, self._file().session.get_inputs(), self.features, columns)

    def _check_nulls(self, inputs: Inputs) -> None:
        for column in inputs.schema if self.pass_nulls else ():
            if not pa.types.is_floating(leaf(column.type)):
                raise SchemaMismatch(
                    f"model.nulls is 'pass', but the model takes column {column.name!r} as {column.type}, "
                    f"which has no NaN; use 'reject'"
                )

    def _file(self) -> Opened:
        if self._opened is None:
            raise ModelNotLoadable(f"model {self.path} was not loaded")
        return self._opened

    def _known(self) -> Learned:
        """What the model answers, found out when it is first wanted."""
        file, rows = self._file(), self._inputs.fixed_rows or _PROBE_ROWS
        if self._learned is None:
            declared = file.session.get_outputs()
            self._learned = learn(
                *(self.path, declared, file.zipmaps, file.outputs, self.outputs, rows, self._probe),
                is_ragged=self._inputs.is_ragged,
            )
        return self._learned

    def _probe(self, names: Sequence[str], length: int) -> list[Any] | None:
        """The answers to rows of zeros; None when the model refuses them."""
        inputs = self._inputs
        rows = inputs.fixed_rows or _PROBE_ROWS
        zeros = [_zeros(field.type, rows, length) for field in inputs.schema]
        tensors = inputs.tensors(pa.RecordBatch.from_arrays(zeros, schema=inputs.schema))
        every = np.arange(rows)
        feed = {name: each.rows(every) if isinstance(each, Ragged) else each for name, each in tensors.items()}
        try:
            return self._file().session.run(list(names), feed)
        except Exception:
            return None


def _zeros(type_: pa.DataType, rows: int, length: int) -> pa.Array:
    """Rows of zeros, or of empty texts; lists of any length have `length` of them."""
    if pa.types.is_fixed_size_list(type_):
        return pa.FixedSizeListArray.from_arrays(_zeros(type_.value_type, rows * type_.list_size, length), type=type_)
    if pa.types.is_list(type_):
        offsets = pa.array(np.arange(rows + 1) * length, pa.int32())
        return pa.ListArray.from_arrays(offsets, _zeros(type_.value_type, rows * length, length), type=type_)
    return pa.array([""] * rows if pa.types.is_string(type_) else np.zeros(rows, dtype_of(type_)), type_)


def _padded(tensor: np.ndarray[Any, Any], rows: int) -> np.ndarray[Any, Any]:
    """`tensor` with its last row repeated up to `rows`."""
    return np.concatenate([tensor, np.repeat(tensor[-1:], rows - len(tensor), axis=0)])


def make(model: ModelSpec, within: Bounds | None) -> OnnxPredictor:
    """The predictor of an ONNX model."""
    return OnnxPredictor(model.uri, model.features, model.nulls == "pass", within, model.outputs)
