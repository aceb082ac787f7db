"""What a predictor promises, and what is said of a model in a job's spec."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, Self, runtime_checkable

import pyarrow as pa

from predictors.flavors import FLAVORS
from predictors.specvalue import NamedPath, SpecValue

Nulls = Literal["reject", "pass", "fail"]
# Columns in the model's order, or those for each of its inputs; None: those named like the inputs.
Features = tuple[str, ...] | Mapping[str, tuple[str, ...]] | None
# Outputs that become columns, or what these are called: several names for the values of a list. None: all, as they are.
Outputs = tuple[str, ...] | Mapping[str, str | tuple[str, ...]] | None


@dataclass(frozen=True)
class ModelSpec(SpecValue):
    """Which model, and how its inputs are fed.

    Args:
        uri: `model.onnx`, or `module:Class` for the Python flavor.
        flavor: which predictor loads it.
        features: columns fed to the model, in its order, or those for each of its inputs; None: the columns named like
            the model's inputs.
        nulls: a row with a null or NaN feature is rejected, passed as NaN, or fails the job. A class that says nothing
            of features gets nulls as they are, but for "fail".
        outputs: those of the model's outputs that become columns, or a column's name for each, or several names for one
            that is a list; None: all of them under their own names.
        args: keyword arguments of a Python class's constructor, JSON values; kept and shown as they are.
    """

    uri: str
    flavor: str
    # Mappings are not hashable.
    features: Features = field(default=None, hash=False)
    nulls: Nulls = "reject"
    outputs: Outputs = field(default=None, hash=False)
    args: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def runs_code(self) -> bool:
        """Whether to load the model is to run code that its `uri` names; otherwise that is a file."""
        return FLAVORS[self.flavor].runs_code

    def paths(self) -> Iterator[NamedPath]:
        """The model's file, where it is one."""
        if not self.runs_code:
            yield NamedPath("uri", self.uri, "read")

    def with_paths(self, change: Callable[[NamedPath], str]) -> Self:
        """The model with the path of its file changed, where it is one."""
        for path in self.paths():
            return replace(self, uri=change(path))
        return self

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ModelSpec":
        """The model that `dataclasses.asdict` has turned into JSON values; a field that they lack has its default."""
        named = {name: tupled_names(values.get(name)) for name in ("features", "outputs")}
        return cls(**{**values, **named})


class Predictor(Protocol):
    """Scores rows. Picklable before `load`; called from one thread at a time after, unless `thread_safe`.

    A predictor may say `cpu_bound = True`: a call computes on one core of this machine, and waits for nothing else.
    """

    thread_safe: bool

    @property
    def input_schema(self) -> pa.Schema:
        """The columns that the model reads, in its order, under the types that `predict` wants. Known after `load`."""

    @property
    def output_schema(self) -> pa.Schema:
        """The prediction columns. Known after `load`."""

    def load(self) -> None:
        """Read the model. Called once per worker, or once per thread when not `thread_safe`.

        Raises:
            ModelNotLoadable: it is missing or corrupt.
            SchemaMismatch: it cannot be fed as the spec says.
        """

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Score `rows`, keeping their order.

        Args:
            rows: n >= 1 rows laid out as `input_schema`.

        Returns:
            Exactly n rows laid out as `output_schema`; row i answers input row i.

        Raises:
            RowsRejected: names the bad rows; nothing was scored.
            OutOfMemory: the same rows may fit in smaller calls.
            Transient: the same rows may pass later.
        """


@runtime_checkable
class Bindable(Protocol):
    """A predictor whose input depends on the types of the columns that it is fed."""

    def bind(self, columns: pa.Schema) -> None:
        """Fit a loaded predictor to the columns of the input. It stays so when it is pickled.

        Raises:
            SchemaMismatch: these columns cannot feed it.
        """


@runtime_checkable
class Undeclared(Predictor, Bindable, Protocol):
    """A predictor whose model may leave open what it reads and answers: its schemas are None until it is told them."""

    uri: str

    @property
    def chosen(self) -> tuple[str, ...] | None:
        """The columns that the spec or the model says are read; None where neither does: all, nulls as they are."""

    def learn(self, output_schema: pa.Schema) -> None:
        """Take the prediction columns from an answer, where the model does not declare them. Stays when pickled."""


class PreparedSpan(Protocol):
    """Rows laid out for a model, and room for its answers. Used by one thread at a time."""

    def score(self, start: int, stop: int) -> None:
        """Score the rows from `start` to before `stop` and keep the answers.

        Raises:
            WrongAnswer: another number of rows, or other columns, than promised.
            Exception: what `predict` would raise of the same rows; `RowsRejected` counts from `start`.
        """

    def answers(self, ranges: Sequence[tuple[int, int]]) -> pa.RecordBatch:
        """What was kept of these ranges, each scored before by one call, ascending. Nothing is scored afterwards."""


@runtime_checkable
class SpanPredictor(Protocol):
    """A predictor that prepares a whole span at once and is then called with ranges of it.

    Turning columns into tensors and answers into columns costs as much as a small model; once for 64k rows it costs
    nothing.
    """

    def prepare(self, rows: pa.RecordBatch) -> PreparedSpan:
        """Lay out `rows` for the model; ranges of them are answered exactly as `predict` answers slices."""


def tupled_names(value: Any) -> Any:
    """Features or outputs as JSON has them, lists of names or mappings, as the frozen dataclasses hold them."""
    if isinstance(value, Mapping):
        return {name: each if isinstance(each, str) else tuple(each) for name, each in value.items()}
    return None if value is None else tuple(value)
