"""A class of the user's as a model: what it may leave out, and what is said when it will not do."""

import itertools
import pickle
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from predictors.base import ModelSpec
from predictors.errors import ModelNotLoadable, RowsRejected, SchemaMismatch, WrongAnswer
from predictors.onnx import OnnxPredictor
from predictors.pool.inline import check_answer
from predictors.python import PythonPredictor
from predictors.registry import make_predictor

Define = Callable[[str], str]
NUMBERS = itertools.count()
ROWS = pa.record_batch({"x": [1.0, 2.0], "y": [10.0, 20.0]})
SUM = """
import pyarrow as pa
import pyarrow.compute as pc

class Model:
    def predict(self, rows):
        return pa.record_batch({"sum": pc.add(rows["x"], rows["y"])})
"""


@pytest.fixture
def define(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Define:
    """Writes a module with a class `Model` where the job would find it; returns the model's uri."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def define(source: str) -> str:
        name = f"users_module_{next(NUMBERS)}"
        (tmp_path / f"{name}.py").write_text(source)
        return f"{name}:Model"

    return define


def loaded(uri: str, *features: str) -> PythonPredictor:
    predictor = PythonPredictor(uri, features or None)
    predictor.load()
    return predictor


class TestAClass:
    def test_it_is_made_loaded_and_asked(self, define: Define) -> None:
        predictor = loaded(
            define("""
import pyarrow as pa

class Model:
    def load(self):
        self.factor = 3

    def predict(self, rows):
        return pa.record_batch({"y": [value * self.factor for value in rows["x"].to_pylist()]})
""")
        )

        assert predictor.predict(ROWS).to_pydict() == {"y": [3.0, 6.0]}

    def test_it_needs_no_load(self, define: Define) -> None:
        assert loaded(define(SUM)).predict(ROWS).to_pydict() == {"sum": [11.0, 22.0]}

    @pytest.mark.parametrize(
        ("line", "safe"), [("thread_safe = True", True), ("thread_safe = False", False), ("", False)]
    )
    def test_only_what_it_says_makes_it_safe_for_threads(self, define: Define, line: str, safe: bool) -> None:
        assert PythonPredictor(define(f"class Model:\n    {line}\n    predict = None")).thread_safe is safe

    def test_its_own_errors_reach_who_asked(self, define: Define) -> None:
        predictor = loaded(
            define("""
from predictors.errors import RowsRejected

class Model:
    def predict(self, rows):
        raise RowsRejected([1], "too old")
""")
        )

        with pytest.raises(RowsRejected, match="too old"):
            predictor.predict(ROWS)

    def test_it_is_pickled_by_name_and_with_what_was_learnt(self, define: Define) -> None:
        predictor = loaded(define(SUM), "x", "y")
        predictor.bind(ROWS.schema)
        predictor.learn(predictor.predict(ROWS).schema)

        copy = pickle.loads(pickle.dumps(predictor))

        assert (copy.uri, copy.features, copy.thread_safe) == (predictor.uri, predictor.features, predictor.thread_safe)
        assert copy.input_schema == ROWS.schema
        assert copy.output_schema == pa.schema([("sum", pa.float64())])
        with pytest.raises(ModelNotLoadable, match="was not loaded"):
            copy.predict(ROWS)
        copy.load()
        assert copy.predict(ROWS).to_pydict() == {"sum": [11.0, 22.0]}


class TestSchemas:
    DECLARED = """
import pyarrow as pa

class Model:
    input_schema = pa.schema([("x", pa.float32()), ("y", pa.int64())])
    output_schema = pa.schema([("z", pa.string())])

    def predict(self, rows):
        return pa.record_batch({"z": [str(row) for row in rows.to_pylist()]})
"""

    def test_what_the_class_declares_stands(self, define: Define) -> None:
        predictor = loaded(define(self.DECLARED))

        predictor.bind(pa.schema([("x", pa.int8()), ("y", pa.int8()), ("more", pa.string())]))
        predictor.learn(pa.schema([("other", pa.int8())]))

        assert predictor.input_schema == pa.schema([("x", pa.float32()), ("y", pa.int64())])
        assert predictor.output_schema == pa.schema([("z", pa.string())])

    def test_an_instance_may_declare_what_its_class_does_not_know(self, define: Define) -> None:
        predictor = loaded(
            define("""
import pyarrow as pa

class Model:
    def load(self):
        self.output_schema = pa.schema([("z", pa.int8())])

    def predict(self, rows): ...
""")
        )

        assert predictor.output_schema == pa.schema([("z", pa.int8())])

    def test_features_choose_among_the_declared_columns(self, define: Define) -> None:
        predictor = loaded(define(self.DECLARED), "y")

        assert predictor.input_schema == pa.schema([("y", pa.int64())])

    def test_a_feature_that_is_not_declared_is_refused(self, define: Define) -> None:
        uri = define(self.DECLARED)

        with pytest.raises(SchemaMismatch) as caught:
            loaded(uri, "x", "age")
        assert str(caught.value) == f"model.features names 'age', but model {uri} takes x, y"

    def test_what_is_not_declared_is_taken_from_the_input(self, define: Define) -> None:
        columns = pa.schema([pa.field("x", pa.int8(), metadata={"a": "b"}), ("y", pa.int8()), ("z", pa.string())])
        chosen, whole = loaded(define(SUM), "z", "x"), loaded(define(SUM))

        chosen.bind(columns)
        whole.bind(columns)

        assert chosen.input_schema is not None
        assert chosen.input_schema.equals(pa.schema([("z", pa.string()), ("x", pa.int8())]), check_metadata=True)
        assert whole.input_schema == columns

    @pytest.mark.parametrize("features", [("x", "z"), ()], ids=["named", "all"])
    def test_a_column_that_is_there_twice_is_refused(self, define: Define, features: tuple[str, ...]) -> None:
        predictor = loaded(define(SUM), *features)

        with pytest.raises(SchemaMismatch, match="the input has 2 columns named 'x'"):
            predictor.bind(pa.schema([("x", pa.int8()), ("x", pa.int8()), ("z", pa.int8())]))

    def test_a_feature_that_the_input_lacks_is_refused(self, define: Define) -> None:
        predictor = loaded(define(SUM), "x", "yy")

        with pytest.raises(
            SchemaMismatch, match="takes a column 'yy', which the input does not have; did you mean 'y'"
        ):
            predictor.bind(ROWS.schema)

    def test_nothing_is_known_before_anyone_says_it(self, define: Define) -> None:
        predictor = loaded(define(SUM))

        assert predictor.input_schema is None
        assert predictor.output_schema is None

    @pytest.mark.parametrize("name", ["input_schema", "output_schema"])
    def test_a_schema_of_another_kind_is_refused(self, define: Define, name: str) -> None:
        uri = define(f"class Model:\n    {name} = {{'x': 'float'}}\n    def predict(self, rows): ...")

        with pytest.raises(ModelNotLoadable) as caught:
            loaded(uri)
        assert str(caught.value) == f"model {uri}: {name} is dict, not a pyarrow.Schema"


class TestAClassThatCannotBeLoaded:
    @pytest.mark.parametrize("uri", ["churn", "churn:", ":Churn", ""])
    def test_a_uri_that_names_no_class(self, uri: str) -> None:
        with pytest.raises(ModelNotLoadable) as caught:
            PythonPredictor(uri)
        assert str(caught.value) == f"model {uri}: name it as module:Class"

    def test_a_module_that_is_not_there(self) -> None:
        with pytest.raises(ModelNotLoadable) as caught:
            PythonPredictor("no_such_module:Model")
        assert str(caught.value) == (
            "model no_such_module:Model: No module named 'no_such_module'; "
            "is it on the import path (in a service: that of the model, --import-path)?"
        )

    def test_a_module_that_needs_one_that_is_not_there(self, define: Define) -> None:
        with pytest.raises(ModelNotLoadable, match="No module named 'no_such_library'; is it on the import path"):
            PythonPredictor(define("import no_such_library"))

    def test_a_class_that_the_module_lacks(self, define: Define) -> None:
        uri = define("class Other: ...")

        with pytest.raises(ModelNotLoadable) as caught:
            PythonPredictor(uri)
        assert str(caught.value) == f"model {uri}: module {uri.partition(':')[0]} has no class Model"

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            ("1 / 0", "ZeroDivisionError: division by zero"),
            ("import sys; sys.exit(2)", "SystemExit: 2"),
            ("import os; os.no_such_thing", "AttributeError: module 'os' has no attribute 'no_such_thing'"),
            ("from os import no_such_thing", "ImportError: cannot import name 'no_such_thing' from 'os'"),
            ("def broken(:", "SyntaxError: invalid syntax"),
        ],
    )
    def test_a_module_that_fails_while_it_is_imported(self, define: Define, line: str, reason: str) -> None:
        uri = define(line)

        with pytest.raises(ModelNotLoadable) as caught:
            PythonPredictor(uri)
        assert str(caught.value).startswith(f"model {uri}: importing it failed: {reason}")

    @pytest.mark.parametrize("method", ["__init__", "load"])
    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            ("raise OSError('weights.bin is not\\n there')", "OSError: weights.bin is not there"),
            ("raise SystemExit(2)", "SystemExit: 2"),
        ],
    )
    def test_a_class_that_raises_while_it_is_loaded(self, define: Define, method: str, line: str, reason: str) -> None:
        uri = define(f"class Model:\n    def {method}(self):\n        {line}\n    def predict(self, rows): ...")

        with pytest.raises(ModelNotLoadable) as caught:
            loaded(uri)
        assert str(caught.value) == f"model {uri} did not load: {reason}"

    def test_an_error_of_ours_that_a_class_raises_while_it_is_loaded_is_kept(self, define: Define) -> None:
        uri = define("""
from predictors.errors import SchemaMismatch

class Model:
    def load(self):
        raise SchemaMismatch("of another year")
""")

        with pytest.raises(SchemaMismatch, match="of another year"):
            loaded(uri)

    @pytest.mark.parametrize("body", ["pass", "predict = 3"])
    def test_a_class_that_cannot_predict(self, define: Define, body: str) -> None:
        uri = define(f"class Model:\n    {body}")

        with pytest.raises(ModelNotLoadable) as caught:
            loaded(uri)
        assert str(caught.value) == f"model {uri} has no method predict(rows)"

    def test_something_that_is_no_class(self, define: Define) -> None:
        with pytest.raises(ModelNotLoadable, match="did not load: TypeError: 'int' object is not callable"):
            loaded(define("Model = 3"))


class TestWrongAnswers:
    @pytest.mark.parametrize(
        ("answer", "kind"),
        [
            ("pa.table({'y': [1, 2]})", "pyarrow.lib.Table"),
            ("pa.array([1, 2])", "pyarrow.lib.Int64Array"),
            ("np.zeros(2)", "numpy.ndarray"),
            ("{'y': [1, 2]}", "dict"),
            ("[1, 2]", "list"),
            ("None", "NoneType"),
        ],
    )
    def test_what_is_no_record_batch(self, define: Define, answer: str, kind: str) -> None:
        uri = define(
            "import numpy as np\nimport pyarrow as pa\n"
            f"class Model:\n    def predict(self, rows):\n        return {answer}"
        )

        with pytest.raises(WrongAnswer) as caught:
            loaded(uri).predict(ROWS)
        assert str(caught.value) == f"model {uri}: predict returned {kind}, not a pyarrow.RecordBatch"

    def test_a_class_that_would_end_the_process_ends_the_job_with_its_name(self, define: Define) -> None:
        uri = define("import sys\nclass Model:\n    def predict(self, rows):\n        sys.exit(3)")

        with pytest.raises(WrongAnswer) as caught:
            loaded(uri).predict(ROWS)
        assert str(caught.value) == f"model {uri}: predict called sys.exit(3)"

    @pytest.mark.parametrize("rows", [0, 1, 3])
    def test_another_number_of_rows(self, rows: int) -> None:
        answer = pa.record_batch({"y": pa.array([1.0] * rows, pa.float64())})

        with pytest.raises(WrongAnswer) as caught:
            check_answer(answer, 2, answer.schema)
        assert str(caught.value) == (
            f"the model returned {rows} rows for 2; each row needs exactly one answer, in order"
        )

    @pytest.mark.parametrize(
        ("promised", "brief"),
        [
            pytest.param(pa.schema([("y", pa.float32())]), "y: float", id="type"),
            pytest.param(pa.schema([("z", pa.float64())]), "z: double", id="name"),
            pytest.param(pa.schema([("y", pa.float64()), ("z", pa.int8())]), "y: double, z: int8", id="one less"),
            pytest.param(pa.schema([]), "", id="one more"),
            pytest.param(pa.schema([pa.field("y", pa.float64(), nullable=False)]), "y: double not null", id="nulls"),
        ],
    )
    def test_other_columns(self, promised: pa.Schema, brief: str) -> None:
        with pytest.raises(WrongAnswer) as caught:
            check_answer(pa.record_batch({"y": [1.0]}), 1, promised)
        assert str(caught.value) == f"the model returned columns (y: double), but promised ({brief})"

    def test_metadata_is_no_other_column(self) -> None:
        answer = pa.record_batch({"y": [1.0]}).replace_schema_metadata({"made": "by pandas"})

        check_answer(answer, 1, pa.schema([("y", pa.float64())]))


class TestRegistry:
    def test_a_spec_names_the_predictor(self, define: Define) -> None:
        uri = define(SUM)

        assert make_predictor(ModelSpec("model.onnx", "onnx", ("x",), "pass")) == OnnxPredictor(
            "model.onnx", ("x",), True
        )
        assert make_predictor(ModelSpec(uri, "python", ("x",))) == PythonPredictor(uri, ("x",))

    def test_a_flavor_that_nobody_knows(self) -> None:
        with pytest.raises(ModelNotLoadable) as caught:
            make_predictor(ModelSpec("model.pt", "torch"))  # type: ignore[arg-type]
        assert str(caught.value) == "model.flavor 'torch' is not known; use onnx or python"
