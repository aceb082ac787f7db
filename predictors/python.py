"""A model that is a Python class: `module:Class` with `load()` and `predict(rows)`."""

import importlib
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from predictors.errors import ModelNotLoadable, PredictorError, SchemaMismatch, WrongAnswer
from predictors.feeding import check_names
from predictors.recovery import text_of


@dataclass
class PythonPredictor:
    """Scores with a class of the user's.

    The class has `load()`, optional, and `predict(rows: pa.RecordBatch) -> pa.RecordBatch`. It may declare
    `input_schema`, `output_schema` (pa.Schema) and `thread_safe` (bool, default False). What it does not declare is
    taken from the features, under the types in which they are read, and from its answer to the first rows.

    Args:
        uri: `module:Class`; the module is looked for in the job's working folder, too.
        features: columns given to `predict`, in this order; None: those of `input_schema`, or all.
    """

    uri: str
    features: tuple[str, ...] | None = None
    thread_safe: bool = field(default=False, init=False)
    _model: Any = field(default=None, init=False, repr=False)
    _input_schema: pa.Schema | None = field(default=None, init=False, repr=False)
    _output_schema: pa.Schema | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.thread_safe = bool(getattr(self._class(), "thread_safe", False))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": None}

    @property
    def input_schema(self) -> pa.Schema | None:
        """What the class declares or `bind` was given; None while neither is known."""
        return self._input_schema

    @property
    def output_schema(self) -> pa.Schema | None:
        """What the class declares or `learn` was shown; None while neither is known."""
        return self._output_schema

    def load(self) -> None:
        """Make an instance and load it.

        Raises:
            ModelNotLoadable: the constructor or `load` raised, there is no `predict`, or a declared schema is none.
            SchemaMismatch: a feature is not in the `input_schema` that the class declares.
        """
        cls = self._class()
        try:
            model = cls()
            if hasattr(model, "load"):
                model.load()
        except PredictorError:
            raise
        except (Exception, SystemExit) as error:
            raise ModelNotLoadable(f"model {self.uri} did not load: {_named(error)}") from error
        if not callable(getattr(model, "predict", None)):
            raise ModelNotLoadable(f"model {self.uri} has no method predict(rows)")
        declared = self._declared(model, "input_schema")
        if declared is not None:
            self._input_schema = self._chosen(declared)
        self._output_schema = self._declared(model, "output_schema") or self._output_schema
        self._model = model

    def bind(self, columns: pa.Schema) -> None:
        """Take the features' types from the input, where the class does not declare its own.

        Raises:
            SchemaMismatch: a feature is not one column of the input.
        """
        if self._input_schema is None:
            names = self.features or columns.names
            check_names(columns, names)
            self._input_schema = pa.schema([columns.field(name).remove_metadata() for name in names])

    def learn(self, output_schema: pa.Schema) -> None:
        """Take the prediction columns from an answer, where the class does not declare them."""
        if self._output_schema is None:
            self._output_schema = output_schema.remove_metadata()

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Hand `rows` to the class.

        Raises:
            WrongAnswer: it did not return a RecordBatch, or it called `sys.exit`.
        """
        if self._model is None:
            raise ModelNotLoadable(f"model {self.uri} was not loaded")
        try:
            answer = self._model.predict(rows)
        except SystemExit as error:
            # It would end the thread without a word, and the job would wait for it forever.
            raise WrongAnswer(f"model {self.uri}: predict called sys.exit({error.code!r})") from error
        if not isinstance(answer, pa.RecordBatch):
            raise WrongAnswer(f"model {self.uri}: predict returned {_type_name(answer)}, not a pyarrow.RecordBatch")
        return answer

    def _declared(self, model: Any, name: str) -> pa.Schema | None:
        schema = getattr(model, name, None)
        if schema is None or isinstance(schema, pa.Schema):
            return schema
        raise ModelNotLoadable(f"model {self.uri}: {name} is {_type_name(schema)}, not a pyarrow.Schema")

    def _chosen(self, declared: pa.Schema) -> pa.Schema:
        """The features under their declared types."""
        if self.features is None:
            return declared
        for name in self.features:
            if name not in declared.names:
                raise SchemaMismatch(
                    f"model.features names {name!r}, but model {self.uri} takes {', '.join(declared.names)}"
                )
        return pa.schema([declared.field(name) for name in self.features])

    def _class(self) -> Any:
        name, colon, cls = self.uri.partition(":")
        if not (name and colon and cls):
            raise ModelNotLoadable(f"model {self.uri}: name it as module:Class")
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            remedy = "is it on the import path (in a service: that of the model, --import-path)?"
            raise ModelNotLoadable(f"model {self.uri}: {error}; {remedy}") from error
        except (Exception, SystemExit) as error:
            raise ModelNotLoadable(f"model {self.uri}: importing it failed: {_named(error)}") from error
        try:
            return getattr(module, cls)
        except AttributeError as error:
            raise ModelNotLoadable(f"model {self.uri}: module {name} has no class {cls}") from error


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {text_of(error)}"


def _type_name(value: object) -> str:
    cls = type(value)
    return cls.__name__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__name__}"
