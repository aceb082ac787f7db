"""A class of the user's as a model: what it may leave out, and what is said when it will not do."""

import itertools
import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from predictors.base import ModelSpec
from predictors.errors import ModelNotLoadable, RowsRejected, SchemaMismatch, WrongAnswer
from predictors.finding import check_names
from predictors.onnx import OnnxPredictor
from predictors.pool.inline import check_answer
from predictors.python import ModelExited, PythonPredictor
from predictors.recovery import kind_of, text_of
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


def file_of(uri: str) -> str:
    """The file of a class as messages name it."""
    return uri.partition(":")[0] + ".py"


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
            f"model no_such_module:Model: No module named 'no_such_module'; it was looked for in the working folder "
            f"{Path.cwd()} (in a service: the model's --import-path), then among what is installed; start from the "
            "folder of the module, or install it"
        )

    def test_a_module_whose_name_is_nearly_right(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "churn_model.py").touch()
        monkeypatch.chdir(tmp_path)

        with pytest.raises(ModelNotLoadable, match=r"did you mean churn_model\?$"):
            PythonPredictor("churn_modle:Model")

    def test_a_module_that_needs_one_that_is_not_there(self, define: Define) -> None:
        uri = define("import no_such_library")

        with pytest.raises(ModelNotLoadable) as caught:
            PythonPredictor(uri)
        assert str(caught.value).startswith(
            f"model {uri}: importing it failed: No module named 'no_such_library' ({file_of(uri)}:1); "
            "install it beside Penstock, by "
        )

    @pytest.mark.parametrize(
        ("uri", "remedy"),
        [
            ("mymodels.py:X", "name the module, not its file, here mymodels:X"),
            ("./path/to/x.py:X", "name the module, not its file, here path.to.x:X"),
            ("/path/to/x.py:X", "name the module, not its file, here x:X, and start from the folder of the file"),
            ("x.py", "name it as module:Class, here x:Class"),
            ("churn.Model", "name it as module:Class, here churn:Model"),
        ],
    )
    def test_a_path_in_the_place_of_a_module(self, uri: str, remedy: str) -> None:
        with pytest.raises(ModelNotLoadable) as caught:
            PythonPredictor(uri)
        assert str(caught.value) == f"model {uri}: {remedy}"

    def test_a_class_that_the_module_lacks(self, define: Define) -> None:
        uri = define("class Other: ...")

        with pytest.raises(ModelNotLoadable) as caught:
            PythonPredictor(uri)
        assert str(caught.value) == f"model {uri}: module {uri.partition(':')[0]} has no class Model; it has Other"

    def test_a_class_that_is_called_nearly_so(self, define: Define) -> None:
        with pytest.raises(ModelNotLoadable, match=r"has no class Model; did you mean MyModel\?$"):
            PythonPredictor(define("class MyModel: ..."))

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            ("1 / 0", "ZeroDivisionError: division by zero"),
            ("import sys; sys.exit(2)", "SystemExit: 2"),
            ("import os; os.no_such_thing", "AttributeError: module 'os' has no attribute 'no_such_thing'"),
            ("from json import nothing", f"ImportError: cannot import name 'nothing' from 'json' ({json.__file__})"),
            ("def broken(:", "SyntaxError: invalid syntax"),
        ],
    )
    def test_a_module_that_fails_while_it_is_imported(self, define: Define, line: str, reason: str) -> None:
        uri = define(line)

        with pytest.raises(ModelNotLoadable) as caught:
            PythonPredictor(uri)
        assert str(caught.value) == f"model {uri}: importing it failed: {reason} ({file_of(uri)}:1)"

    def test_a_module_of_a_package_that_is_named_without_it(self, define: Define) -> None:
        uri = define("from .constants import FACTOR")

        with pytest.raises(ModelNotLoadable, match=rf"; name it with its package, as \w+\.{uri}, and start from the"):
            PythonPredictor(uri)

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
        assert str(caught.value) == f"model {uri} did not load: {reason} ({file_of(uri)}:3 in {method})"

    def test_an_error_of_ours_that_a_class_raises_while_it_is_loaded_is_kept(self, define: Define) -> None:
        uri = define("""
from predictors.errors import SchemaMismatch

class Model:
    def load(self):
        raise SchemaMismatch("of another year")
""")

        with pytest.raises(SchemaMismatch, match="of another year"):
            loaded(uri)

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            ("pass", " has no method predict(rows)"),
            ("predict = 3", " has no method predict(rows)"),
            ("def predict_(self, rows): ...", " has no method predict(rows); did you mean predict_?"),
            (
                "def predict(self): ...",
                ": predict ({file}:2) is called with the rows alone: too many positional arguments; "
                "write `def predict(self, rows)`",
            ),
            (
                "def predict(self, rows, more): ...",
                ": predict ({file}:2) is called with the rows alone: missing a required argument: 'more'; "
                "write `def predict(self, rows)`",
            ),
            (
                "async def predict(self, rows): ...",
                ": predict is async ({file}:2); write `def predict(self, rows)`, with asyncio.run inside",
            ),
            (
                "def predict(self, rows): yield rows",
                ": predict yields ({file}:2); return the answers to all rows at once",
            ),
        ],
    )
    def test_a_class_that_cannot_predict(self, define: Define, body: str, reason: str) -> None:
        uri = define(f"class Model:\n    {body}")

        with pytest.raises(ModelNotLoadable) as caught:
            loaded(uri)
        assert str(caught.value) == f"model {uri}{reason.format(file=file_of(uri))}"

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            (
                "def Model(rows): ...",
                " is a function ({file}:1), and a class is wanted; write a class whose method predict(self, rows) "
                "returns Model(rows), and name that",
            ),
            ("Model = 3", " is a value of type int, and a class is wanted; name a class"),
            ("import json as Model", " is a module; name it as json:Class"),
        ],
    )
    def test_something_that_is_no_class(self, define: Define, line: str, reason: str) -> None:
        uri = define(line)

        with pytest.raises(ModelNotLoadable) as caught:
            loaded(uri)
        assert str(caught.value) == f"model {uri}{reason.format(file=file_of(uri))}"

    @pytest.mark.parametrize(
        ("parameters", "args", "reason"),
        [
            (
                "self, threshold",
                {},
                "cannot be called: missing a required argument: 'threshold'; give it in model.args",
            ),
            ("self, threshold=1", {"treshold": 2}, "takes no argument 'treshold'; did you mean 'threshold'?"),
            ("self", {"threshold": 2}, "takes no argument 'threshold'; it takes none"),
        ],
    )
    def test_a_constructor_that_does_not_take_the_arguments(
        self, define: Define, parameters: str, args: dict[str, int], reason: str
    ) -> None:
        uri = define(f"class Model:\n    def __init__({parameters}): ...\n    def predict(self, rows): ...")
        predictor = PythonPredictor(uri, None, args)

        with pytest.raises(ModelNotLoadable) as caught:
            predictor.load()
        assert str(caught.value) == f"model {uri}: its constructor ({file_of(uri)}:2) {reason}"


class TestFailures:
    def test_an_exception_tells_the_line_of_the_users_code_that_it_came_from(self, define: Define) -> None:
        uri = define("""
import json

def parse(text):
    return [json.loads(each) for each in text]

class Model:
    def predict(self, rows):
        return parse(["{"])
""")

        with pytest.raises(json.JSONDecodeError) as caught:
            loaded(uri).predict(ROWS)
        assert text_of(caught.value).endswith(f"(char 1) ({file_of(uri)}:5 in parse)")

    def test_its_traceback_is_logged_once_for_each_place(
        self, define: Define, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO", "predictors")
        uri = define("""
class Model:
    def predict(self, rows):
        if len(rows) > 1:
            raise ValueError("too many")
        raise ValueError("too few")
""")
        predictor = loaded(uri)

        for rows in (ROWS, ROWS, ROWS.slice(1), ROWS.slice(1)):
            with pytest.raises(ValueError, match="too"):
                predictor.predict(rows)

        logged = [record.getMessage() for record in caplog.records]
        assert [text.splitlines()[-1] for text in logged] == ["ValueError: too many", "ValueError: too few"]
        assert f'{file_of(uri)}", line 5, in predict' in logged[0]


class TestFeatures:
    @pytest.mark.parametrize(
        ("declared", "given", "columns", "says"),
        [
            pytest.param("", (), ["x", "y"], False, id="none: all columns as they are"),
            pytest.param("", ("y",), ["y"], True, id="the spec's"),
            pytest.param("features = ['y']", (), ["y"], True, id="the class's"),
            pytest.param("features = ('x', 'y')", ("y",), ["y"], True, id="the spec's before the class's"),
            pytest.param("input_schema = pa.schema([('x', pa.float32())])", (), ["x"], True, id="by its schema"),
            pytest.param(
                "features = ['y']; input_schema = pa.schema([('x', pa.int8()), ('y', pa.int8())])",
                (),
                ["y"],
                True,
                id="some of its schema",
            ),
            pytest.param("features = None", (), ["x", "y"], False, id="nothing in their place"),
            pytest.param("def features(self): ...", (), ["x", "y"], False, id="a method of the name"),
        ],
    )
    def test_they_are_the_specs_or_the_classes_own(
        self, define: Define, declared: str, given: tuple[str, ...], columns: list[str], says: bool
    ) -> None:
        uri = define(f"import pyarrow as pa\nclass Model:\n    {declared or 'pass'}\n    def predict(self, rows): ...")
        predictor = loaded(uri, *given)
        predictor.bind(ROWS.schema)

        assert predictor.input_schema is not None
        assert predictor.input_schema.names == columns
        assert predictor.declares_features is says

    @pytest.mark.parametrize(("features", "kind"), [("'x'", "str"), ("[1]", "list"), ("3", "int"), ("[]", "list")])
    def test_what_names_no_columns_is_refused(self, define: Define, features: str, kind: str) -> None:
        uri = define(f"class Model:\n    features = {features}\n    def predict(self, rows): ...")

        with pytest.raises(ModelNotLoadable) as caught:
            loaded(uri)
        assert str(caught.value) == f"model {uri}: features is {kind}; make it a list of column names"


class TestArguments:
    def test_they_go_to_the_constructor_by_name(self, define: Define) -> None:
        uri = define("""
class Model:
    def __init__(self, factor=1, *, names):
        self.factor, self.names = factor, names
    def predict(self, rows):
        return {name: [self.factor] * len(rows) for name in self.names}
""")
        predictor = make_predictor(ModelSpec(uri, "python", args={"factor": 3, "names": ["a", "b"]}))
        predictor.load()

        assert predictor.predict(ROWS).to_pydict() == {"a": [3, 3], "b": [3, 3]}


class TestNamesThatAreTaken:
    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.chdir(tmp_path)
        return tmp_path

    @pytest.mark.parametrize(
        ("files", "hidden"),
        [
            pytest.param({"model.py": "from transforms import scale", "transforms.py": ""}, "transforms.py", id="file"),
            pytest.param(
                {"model.py": "import pipelines.clean", "pipelines/clean.py": ""}, "pipelines", id="folder of modules"
            ),
            pytest.param(
                {
                    "model.py": "import own.more",
                    "own/__init__.py": "",
                    "own/more.py": "import transforms",
                    "transforms.py": "",
                },
                "transforms.py",
                id="by way of another",
            ),
            pytest.param(
                {
                    "model.py": "from own import more",
                    "own/more.py": "def f():\n    import predictors",
                    "predictors.py": "",
                },
                "predictors.py",
                id="within a function",
            ),
            pytest.param({"model.py": "import penstock", "penstock.py": ""}, "penstock.py", id="penstock"),
        ],
    )
    def test_a_module_that_ours_would_hide_is_found_before_anything_is_imported(
        self, folder: Path, files: dict[str, str], hidden: str
    ) -> None:
        write(folder, files)

        with pytest.raises(ModelNotLoadable) as caught:
            PythonPredictor("model:Model")
        name = hidden.removesuffix(".py")
        assert str(caught.value) == (
            f"model model:Model: {hidden} cannot be imported, as Penstock has a package {name!r} of its own, which is "
            "found first; rename it, or move it into a package of yours"
        )
        assert "model" not in sys.modules

    @pytest.mark.parametrize(
        "files",
        [
            pytest.param({"model.py": "", "transforms.py": ""}, id="not imported"),
            pytest.param({"model.py": "import predictors.errors", "predictors/notes.txt": ""}, id="no modules"),
            pytest.param(
                {"model.py": "from predictors.errors import Transient", "launcher.py": ""}, id="ours is meant"
            ),
            pytest.param(
                {"own/a.py": "", "own/transforms.py": "", "model.py": "import own.transforms"}, id="in a package"
            ),
            pytest.param({"model.py": "def broken(:", "transforms.py": ""}, id="not readable"),
        ],
    )
    def test_what_hides_nothing_is_let_be(self, folder: Path, files: dict[str, str]) -> None:
        write(folder, files)

        check_names("model:Model", str(folder))


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


class TestWrongAnswers:
    @pytest.mark.parametrize(("answer", "kind"), [("None", "NoneType"), ("'yes'", "str"), ("0.5", "float")])
    def test_what_is_no_table(self, define: Define, answer: str, kind: str) -> None:
        uri = define(f"class Model:\n    def predict(self, rows):\n        return {answer}")

        with pytest.raises(WrongAnswer) as caught:
            loaded(uri).predict(ROWS)
        assert str(caught.value) == (
            f"model {uri}: predict returned {kind}: it is no table; return a pyarrow RecordBatch, a DataFrame, "
            "an array, a list, or a dict of columns"
        )

    def test_a_row_that_breaks_what_the_first_rows_showed(self, define: Define) -> None:
        uri = define("class Model:\n    def predict(self, rows):\n        return {'n': [1, 1.5]}")
        predictor = loaded(uri)
        predictor.learn(pa.schema([("n", pa.int64())]))

        with pytest.raises(WrongAnswer) as caught:
            predictor.predict(ROWS)
        assert caught.value.row == 1
        assert str(caught.value) == (
            f"model {uri}: predict returned dict: column n holds 1.5 (double), which int64 cannot hold; what was "
            "promised, (n: int64), is what its answer to the first rows showed, as the class declares no output_schema"
            "; declare one: output_schema = pa.schema([('n', ...)]), and run the job anew"
        )

    @pytest.mark.parametrize(
        ("answer", "reason", "row"),
        [
            ("{'z': [1, 2]}", "column z is int64 (1), and promised is string", 0),
            ("{'z': ['a', None]}", "column z holds a null, and promised is NOT NULL", 1),
            ("{'zz': ['a', 'b']}", "it has columns (zz: string), and promised are (z: string not null)", None),
        ],
    )
    def test_what_the_class_does_not_keep_of_its_own_promise(
        self, define: Define, answer: str, reason: str, row: int | None
    ) -> None:
        uri = define(f"""
import pyarrow as pa

class Model:
    output_schema = pa.schema([pa.field("z", pa.string(), nullable=False)])
    def predict(self, rows):
        return {answer}
""")

        with pytest.raises(WrongAnswer) as caught:
            loaded(uri).predict(ROWS)
        assert caught.value.row == row
        assert str(caught.value) == (
            f"model {uri}: predict returned dict: {reason}; return what the output_schema of the class says, or "
            "declare another, and run the job anew"
        )

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ("import sys; sys.exit(3)", "predict called sys.exit(3)"),
            ("import sys; sys.exit()", "predict called sys.exit()"),
            ("raise KeyboardInterrupt", "predict raised KeyboardInterrupt"),
            ("raise GeneratorExit('enough')", "predict raised GeneratorExit: enough"),
        ],
    )
    def test_a_class_that_would_end_the_process_has_met_a_bad_row(self, define: Define, line: str, said: str) -> None:
        uri = define(f"class Model:\n    def predict(self, rows):\n        {line}")

        with pytest.raises(ModelExited) as caught:
            loaded(uri).predict(ROWS)
        assert text_of(caught.value) == f"{said} ({uri.partition(':')[0]}.py:3 in predict)"
        assert kind_of(caught.value) == "bad_data"

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


TWO = """
import pyarrow as pa

class Model:
    {declared}
    def predict(self, rows):
        pairs = pa.FixedSizeListArray.from_arrays(pa.array([0.25, 0.75] * rows.num_rows), 2)
        return pa.record_batch({{"label": pa.array(["a"] * rows.num_rows), "p": pairs}})
"""


class TestChosenOutputs:
    @pytest.mark.parametrize(
        "declared",
        ["", "output_schema = pa.schema([('label', pa.string()), ('p', pa.list_(pa.float64(), 2))])"],
        ids=["not declared", "declared"],
    )
    def test_columns_of_the_answers_are_chosen_named_and_spread(self, define: Define, declared: str) -> None:
        spec = ModelSpec(define(TWO.format(declared=declared)), "python", outputs={"p": ("no", "yes"), "label": "said"})
        predictor = make_predictor(spec)
        predictor.load()
        assert isinstance(predictor, PythonPredictor)
        if not declared:
            predictor.learn(predictor.predict(ROWS).schema)
        copy = pickle.loads(pickle.dumps(predictor))
        copy.load()

        for each in (predictor, copy):
            answer = each.predict(ROWS)
            assert answer.schema == each.output_schema
            assert answer.to_pydict() == {"no": [0.25] * 2, "yes": [0.75] * 2, "said": ["a"] * 2}

    def test_a_column_that_is_not_there_is_named_with_the_nearest(self, define: Define) -> None:
        predictor = make_predictor(ModelSpec(define(TWO.format(declared="")), "python", outputs=("lable",)))
        predictor.load()

        with pytest.raises(
            SchemaMismatch, match=r"names 'lable', which model .* does not answer; did you mean 'label'"
        ):
            predictor.predict(ROWS)

    def test_columns_of_inputs_are_for_models_that_have_some(self, define: Define) -> None:
        with pytest.raises(ModelNotLoadable, match="and a class has none; list the columns instead"):
            make_predictor(ModelSpec(define(TWO.format(declared="")), "python", {"num": ("x",)}))


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
