"""A model that is a Python class: `module:Class` with `load()` and `predict(rows)`."""

import importlib
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from predictors.errors import ModelNotLoadable, PredictorError, WrongAnswer


@dataclass
class PythonPredictor:
    """Scores with a class of the user's.

    The class has `load()`, optional, and `predict(rows: pa.RecordBatch) -> pa.RecordBatch`. It may declare
    `input_schema`, `output_schema` (pa.Schema) and `thread_safe` (bool, default False). What it does not declare is
    taken from the features, under the types in which they are read, and from its answer to the first rows.

    Args:
        uri: `module:Class`; the module is looked for in the job's working folder, too.
        features: columns given to `predict`; None: those of `input_schema`, or all.
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
            ModelNotLoadable: the constructor or `load` raised, or there is no `predict`.
        """
        cls = self._class()
        try:
            model = cls()
            if hasattr(model, "load"):
                model.load()
        except PredictorError:
            raise
        except Exception as error:
            raise ModelNotLoadable(f"model {self.uri} did not load: {type(error).__name__}: {error}") from error
        if not callable(getattr(model, "predict", None)):
            raise ModelNotLoadable(f"model {self.uri} has no method predict(rows)")
        self._input_schema = getattr(model, "input_schema", None) or self._input_schema
        self._output_schema = getattr(model, "output_schema", None) or self._output_schema
        self._model = model

    def bind(self, columns: pa.Schema) -> None:
        """Take the features' types from the input, where the class does not declare its own."""
        if self._input_schema is None:
            names = self.features or columns.names
            self._input_schema = pa.schema([columns.field(name).remove_metadata() for name in names])

    def learn(self, output_schema: pa.Schema) -> None:
        """Take the prediction columns from an answer, where the class does not declare them."""
        if self._output_schema is None:
            self._output_schema = output_schema.remove_metadata()

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Hand `rows` to the class.

        Raises:
            WrongAnswer: it did not return a RecordBatch.
        """
        answer = self._model.predict(rows)
        if not isinstance(answer, pa.RecordBatch):
            raise WrongAnswer(f"model {self.uri}: predict returned {type(answer).__name__}, not a pyarrow.RecordBatch")
        return answer

    def _class(self) -> Any:
        module, _, name = self.uri.partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            raise ModelNotLoadable(f"model {self.uri}: {error}; is it on the import path of the job?") from error
        except AttributeError as error:
            raise ModelNotLoadable(f"model {self.uri}: module {module} has no class {name}") from error
        except Exception as error:
            raise ModelNotLoadable(f"model {self.uri}: importing it failed: {type(error).__name__}: {error}") from error
