"""A model that is a Python class: `module:Class` with `load()` and `predict(rows)`."""

import difflib
import inspect
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from predictors.answers import Unfit, brief, read_answer
from predictors.base import ModelSpec, Outputs
from predictors.blame import blame, log_once
from predictors.bounds import Bounds
from predictors.errors import ModelNotLoadable, PredictorError, SchemaMismatch, WrongAnswer
from predictors.feeding import check_names
from predictors.finding import defined_at, find_class, named
from predictors.naming import Naming


class ModelExited(Exception):
    """A model would have ended its process, as by `sys.exit`. Bad data to whoever scores, as other exceptions are."""


@dataclass
class PythonPredictor:
    """Scores with a class of the user's.

    The class has `load()`, optional, and `predict(rows: pa.RecordBatch)`, which returns a table of any kind that
    `predictors.answers` takes. It may declare `features` (names of columns), `input_schema` and `output_schema`
    (pa.Schema), and `thread_safe` (bool, default False). What it does not declare is taken from the input, under the
    types in which it is read, and from its answer to the first rows.

    Args:
        uri: `module:Class`; the module is looked for in the job's working folder, too.
        features: columns given to `predict`, in this order; None: those that the class declares, or all.
        args: keyword arguments of the constructor.
        outputs: which columns of its answers the job gets, and what they are called; None: all.
    """

    uri: str
    features: tuple[str, ...] | None = None
    args: Mapping[str, Any] = field(default_factory=dict)
    outputs: Outputs = None
    thread_safe: bool = field(default=False, init=False)
    _model: Any = field(default=None, init=False, repr=False)
    _chosen: tuple[str, ...] | None = field(default=None, init=False, repr=False)
    _input_schema: pa.Schema | None = field(default=None, init=False, repr=False)
    _output_schema: pa.Schema | None = field(default=None, init=False, repr=False)
    _answers: pa.Schema | None = field(default=None, init=False, repr=False)
    _is_learnt: bool = field(default=False, init=False, repr=False)
    _own: tuple[str, ...] = field(default=(), init=False, repr=False)

    def __post_init__(self) -> None:
        self.thread_safe = bool(getattr(find_class(self.uri), "thread_safe", False))

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

    @property
    def chosen(self) -> tuple[str, ...] | None:
        """The columns that the spec or the class says are read; None where neither does. Known after `load`."""
        return self.features if self._chosen is None else self._chosen

    @property
    def declares_features(self) -> bool:
        """Whether the class or the spec says which columns are read. Known after `load`."""
        return self.chosen is not None

    def load(self) -> None:
        """Make an instance and load it.

        Raises:
            ModelNotLoadable: the constructor or `load` raised, `predict` is not there or cannot be called with rows, or
                what the class declares is of a wrong kind.
            SchemaMismatch: a feature is not in the `input_schema` that the class declares.
        """
        cls = find_class(self.uri)
        self._own = _files_of(cls)
        self._check_args(cls)
        try:
            model = cls(**self.args)
            if hasattr(model, "load"):
                model.load()
        except PredictorError:
            raise
        except (Exception, SystemExit) as error:
            blame(error, self._own)
            log_once(error, self.uri)
            raise ModelNotLoadable(f"model {self.uri} did not load: {named(error)}") from error
        self._check_predict(model)
        features, declared = self._declared_features(model), self._declared(model, "input_schema")
        if declared is not None:
            self._input_schema = self._selected(declared, features)
        self._chosen = tuple(declared.names) if features is None and declared is not None else features
        output_schema = self._declared(model, "output_schema")
        if output_schema is not None:
            self._answers, self._is_learnt = output_schema, False
            self._output_schema = output_schema if self.outputs is None else self._naming(output_schema).schema
        self._model = model

    def bind(self, columns: pa.Schema) -> None:
        """Take the features' types from the input, where the class does not declare its own.

        Raises:
            SchemaMismatch: a feature is not one column of the input.
        """
        if self._input_schema is None:
            names = self.features or self._chosen or columns.names
            check_names(columns, names)
            self._input_schema = pa.schema([columns.field(name).remove_metadata() for name in names])

    def learn(self, output_schema: pa.Schema) -> None:
        """Take the prediction columns from an answer, where the class does not declare them."""
        if self._output_schema is None:
            self._output_schema, self._is_learnt = output_schema.remove_metadata(), True

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Hand `rows` to the class. An exception of its own leaves with its place in the user's code.

        Raises:
            WrongAnswer: what it returned is no table, or not the one that was promised.
            ModelExited: it called `sys.exit`, or raised another exception that is no `Exception`.
        """
        if self._model is None:
            raise ModelNotLoadable(f"model {self.uri} was not loaded")
        try:
            answer = self._model.predict(rows)
        except PredictorError:
            raise
        except Exception as error:
            blame(error, self._own)
            log_once(error, self.uri)
            raise
        except BaseException as error:
            # It would end the thread without a word, and the job would wait for it forever; rows may be to blame.
            ended = ModelExited(_how_it_ended(error)).with_traceback(error.__traceback__)
            blame(ended, self._own)
            log_once(error, self.uri)
            raise ended from error
        try:
            return self._read(answer, rows.num_rows)
        except Unfit as error:
            raise self._wrong(answer, error) from error

    def _read(self, answer: Any, rows: int) -> pa.RecordBatch:
        """An answer as the columns that the job gets."""
        if self.outputs is None:
            return read_answer(answer, rows, self._output_schema)
        table = read_answer(answer, rows, self._answers)
        named = self._naming(table.schema).apply(table.columns)
        return named if self._answers is not None else read_answer(named, rows, self._output_schema)

    def _naming(self, answers: pa.Schema) -> Naming:
        return Naming.of(self.outputs, answers, self.uri)

    def _wrong(self, answer: Any, error: Unfit) -> WrongAnswer:
        text = f"model {self.uri}: predict returned {_type_name(answer)}: {error}"
        if self._output_schema is not None and self._is_learnt:
            fields = ", ".join(f"({field.name!r}, ...)" for field in self._output_schema)
            text += (
                f"; what was promised, ({brief(self._output_schema)}), is what its answer to the first rows showed, as "
                f"the class declares no output_schema; declare one: output_schema = pa.schema([{fields}]), and "
                "run the job anew"
            )
        elif self._output_schema is not None:
            text += "; return what the output_schema of the class says, or declare another, and run the job anew"
        return WrongAnswer(text, error.row)

    def _declared(self, model: Any, name: str) -> pa.Schema | None:
        schema = getattr(model, name, None)
        if schema is None or isinstance(schema, pa.Schema):
            return schema
        raise ModelNotLoadable(f"model {self.uri}: {name} is {_type_name(schema)}, not a pyarrow.Schema")

    def _declared_features(self, model: Any) -> tuple[str, ...] | None:
        """The features of the spec, or else of the class."""
        if self.features is not None:
            return self.features
        given = getattr(model, "features", None)
        if given is None or callable(given):
            return None
        names = [given] if isinstance(given, str) or not hasattr(given, "__iter__") else list(given)
        if isinstance(given, str) or not names or not all(isinstance(name, str) for name in names):
            raise ModelNotLoadable(f"model {self.uri}: features is {_type_name(given)}; make it a list of column names")
        return tuple(map(str, names))

    def _selected(self, declared: pa.Schema, features: tuple[str, ...] | None) -> pa.Schema:
        """The features under their declared types."""
        if features is None:
            return declared
        for name in features:
            if name not in declared.names:
                where = "model.features names" if self.features is not None else "its features name"
                raise SchemaMismatch(f"{where} {name!r}, but model {self.uri} takes {', '.join(declared.names)}")
        return pa.schema([declared.field(name) for name in features])

    def _check_args(self, cls: type) -> None:
        """Demand that the constructor takes `args`, before anything of it runs."""
        try:
            signature = inspect.signature(cls)
        except (ValueError, TypeError):
            return
        taken = list(signature.parameters)
        constructor = getattr(cls, "__init__", None)
        at = defined_at(constructor if inspect.isfunction(constructor) else cls)
        any_name = any(each.kind is each.VAR_KEYWORD for each in signature.parameters.values())
        for name in self.args:
            if name not in taken and not any_name:
                near = difflib.get_close_matches(name, taken, n=1)
                remedy = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(taken) or 'none'}"
                raise ModelNotLoadable(f"model {self.uri}: its constructor{at} takes no argument {name!r}; {remedy}")
        try:
            signature.bind(**self.args)
        except TypeError as error:
            raise ModelNotLoadable(
                f"model {self.uri}: its constructor{at} cannot be called: {error}; give it in model.args"
            ) from error

    def _check_predict(self, model: Any) -> None:
        predict = getattr(model, "predict", None)
        if not callable(predict):
            methods = [name for name in dir(model) if not name.startswith("_") and callable(getattr(model, name, None))]
            near = difflib.get_close_matches("predict", methods, n=1)
            raise ModelNotLoadable(
                f"model {self.uri} has no method predict(rows)" + (f"; did you mean {near[0]}?" if near else "")
            )
        at = defined_at(predict)
        if inspect.iscoroutinefunction(predict) or inspect.isasyncgenfunction(predict):
            raise ModelNotLoadable(
                f"model {self.uri}: predict is async{at}; write `def predict(self, rows)`, with asyncio.run inside"
            )
        if inspect.isgeneratorfunction(predict):
            raise ModelNotLoadable(f"model {self.uri}: predict yields{at}; return the answers to all rows at once")
        try:
            inspect.signature(predict).bind(None)
        except TypeError as error:
            raise ModelNotLoadable(
                f"model {self.uri}: predict{at} is called with the rows alone: {error}; write `def predict(self, rows)`"
            ) from error
        except ValueError:
            pass


def _files_of(cls: type) -> tuple[str, ...]:
    """The folder or file that is the class's own, be it installed."""
    module = sys.modules.get(cls.__module__.partition(".")[0])
    file = getattr(module, "__file__", None)
    if not file:
        return ()
    return (os.path.dirname(file),) if os.path.basename(file) == "__init__.py" else (file,)


def _type_name(value: object) -> str:
    cls = type(value)
    return cls.__name__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__name__}"


def _how_it_ended(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"predict called sys.exit({'' if error.code is None else repr(error.code)})"
    text = str(error)
    return f"predict raised {type(error).__name__}" + (f": {text}" if text else "")


def make(model: ModelSpec, within: Bounds | None) -> PythonPredictor:
    """The predictor of a Python class, which is code, and not held against `within`.

    Raises:
        ModelNotLoadable: it cannot be imported, or features are given by inputs.
    """
    if isinstance(model.features, Mapping):
        raise ModelNotLoadable(
            f"model.features names inputs of model {model.uri}, and a class has none; list the columns instead"
        )
    return PythonPredictor(model.uri, model.features, model.args, model.outputs)
