"""ONNX models of many shapes, and files that are none: what is fed, what comes out, what is said."""

import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

from predictors.base import SpanPredictor
from predictors.bounds import Bounds
from predictors.errors import ModelNotLoadable, PredictorError, RowsRejected, SchemaMismatch, WrongAnswer
from predictors.feeding import feed
from predictors.onnx import OnnxPredictor

Write = Callable[..., str]
Shape = Sequence[int | str | None] | None
ONE = np.float32([1])
FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
# ONNX Runtime of the last two years reads both.
OPSET, IR_VERSION = 17, 9


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, tuple[int, Shape]],
    outputs: dict[str, tuple[int, Shape]],
    **constants: Any,
) -> str:
    """A model of some nodes, inputs and outputs `name: (type, shape)`, and constants; returns its path."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, *of) for name, of in inputs.items()],
        [helper.make_tensor_value_info(name, *of) for name, of in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.save_model(model, path)
    return str(path)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Saves a model in a folder of the test's own."""
    return partial(save, tmp_path / "model.onnx")


@pytest.fixture
def weighted(write: Write) -> str:
    """y = x @ [1, 10, 100], x float32 [n, 3]: each feature has a digit of its own in the score."""
    weights = np.array([[1], [10], [100]], np.float32)
    return write([node("MatMul", "x w", "y")], {"x": (FLOAT, ["n", 3])}, {"y": (FLOAT, ["n", 1])}, w=weights)


@pytest.fixture(scope="module")
def perceptron(tmp_path_factory: pytest.TempPathFactory) -> str:
    """3-32-1 with random weights: sums whose last bits depend on how a call is made."""
    dice = np.random.default_rng(7)
    return save(
        tmp_path_factory.mktemp("models") / "perceptron.onnx",
        [
            node("Gemm", "x inner inner_bias", "sum"),
            node("Relu", "sum", "hidden"),
            node("Gemm", "hidden outer outer_bias", "logit"),
            node("Sigmoid", "logit", "score"),
        ],
        {"x": (FLOAT, ["n", 3])},
        {"score": (FLOAT, ["n", 1])},
        inner=dice.normal(size=(3, 32)).astype(np.float32),
        inner_bias=dice.normal(size=32).astype(np.float32),
        outer=dice.normal(size=(32, 1)).astype(np.float32),
        outer_bias=dice.normal(size=1).astype(np.float32),
    )


def loaded(
    path: str, *features: str, pass_nulls: bool = False, columns: dict[str, pa.DataType] | None = None, **named: Any
) -> OnnxPredictor:
    """A loaded predictor that knows what it answers, bound to columns where they are given."""
    predictor = OnnxPredictor(path, **{"features": features or None, "pass_nulls": pass_nulls, **named})
    predictor.load()
    if columns is not None:
        predictor.bind(pa.schema(columns))
    assert predictor.output_schema.names
    return predictor


def score(predictor: OnnxPredictor, columns: dict[str, Any]) -> dict[str, list[Any]]:
    """Feed and predict, as the pool does."""
    rows = pa.record_batch({name: pa.array(values) for name, values in columns.items()})
    fed = feed(rows, predictor.input_schema, "pass" if predictor.pass_nulls else "reject")
    answer = predictor.predict(fed.rows)
    assert answer.num_rows == rows.num_rows
    assert answer.schema == predictor.output_schema
    answer.validate(full=True)
    return answer.to_pydict()


class TestInputs:
    @pytest.mark.parametrize(
        ("features", "expected"),
        [("abc", 321.0), ("cba", 123.0), ("bca", 132.0), ("aab", 211.0)],
    )
    def test_one_tensor_holds_the_features_in_the_order_of_the_spec(
        self, weighted: str, features: str, expected: float
    ) -> None:
        predictor = loaded(weighted, *features)

        assert predictor.input_schema == pa.schema([(name, pa.float32()) for name in features])
        assert score(predictor, {"note": ["x"], "b": [2.0], "c": [3], "a": [1.0]}) == {"y": [expected]}

    @pytest.mark.parametrize("shape", [["n"], ["n", 1], ["n", "k"], None], ids=str)
    def test_one_input_without_features_takes_the_column_of_its_name(self, write: Write, shape: Shape) -> None:
        predictor = loaded(write([node("Neg", "x", "y")], {"x": (FLOAT, shape)}, {"y": (FLOAT, shape)}))

        assert score(predictor, {"z": [0.0, 0.0], "x": [1.0, 2.0]}) == {"y": [-1.0, -2.0]}

    def test_an_input_of_undeclared_shape_takes_as_many_features_as_are_named(self, write: Write) -> None:
        predictor = loaded(write([node("Neg", "x", "y")], {"x": (FLOAT, None)}, {"y": (FLOAT, None)}), "a", "b", "c")

        assert score(predictor, {"a": [1.0], "b": [2.0], "c": [3.0]}) == {"y": [[-1.0, -2.0, -3.0]]}

    @pytest.fixture
    def mixed(self, write: Write) -> str:
        """A float, an integer and a text, each an input of its own."""
        return write(
            [
                node("Cast", "visits", "visits_float", to=FLOAT),
                node("Squeeze", "visits_float axis", "visits_flat"),
                node("Add", "age visits_flat", "sum"),
                node("Identity", "city", "where"),
            ],
            {"age": (FLOAT, ["n"]), "visits": (INT64, ["n", 1]), "city": (STRING, ["n", 1])},
            {"sum": (FLOAT, ["n"]), "where": (STRING, ["n", 1])},
            axis=np.array([1], np.int64),
        )

    def test_several_inputs_take_a_column_each_by_name(self, mixed: str) -> None:
        predictor = loaded(mixed)

        assert predictor.input_schema == pa.schema(
            [("age", pa.float32()), ("visits", pa.int64()), ("city", pa.string())]
        )
        assert score(predictor, {"city": ["Bern", "Köln"], "visits": [2, 3], "age": [0.5, 1.5]}) == {
            "sum": [2.5, 4.5],
            "where": ["Bern", "Köln"],
        }

    def test_several_inputs_take_the_named_features_in_their_order(self, mixed: str) -> None:
        predictor = loaded(mixed, "years", "calls", "town")

        assert predictor.input_schema == pa.schema(
            [("years", pa.float32()), ("calls", pa.int64()), ("town", pa.string())]
        )
        assert score(predictor, {"town": ["Bern"], "calls": [2], "years": [0.5]}) == {"sum": [2.5], "where": ["Bern"]}

    @pytest.mark.parametrize(
        ("type_", "arrow", "values"),
        [
            (FLOAT, pa.float32(), [0.5, -1.0, 2.0**-149]),
            (TensorProto.DOUBLE, pa.float64(), [0.1, -1e300]),
            (TensorProto.FLOAT16, pa.float16(), [0.5, -2.0]),
            (TensorProto.INT8, pa.int8(), [-128, 127]),
            (TensorProto.INT16, pa.int16(), [-(2**15), 2**15 - 1]),
            (TensorProto.INT32, pa.int32(), [-(2**31), 2**31 - 1]),
            (INT64, pa.int64(), [-(2**63), 2**63 - 1]),
            (TensorProto.UINT8, pa.uint8(), [0, 255]),
            (TensorProto.UINT16, pa.uint16(), [0, 2**16 - 1]),
            (TensorProto.UINT32, pa.uint32(), [0, 2**32 - 1]),
            (TensorProto.UINT64, pa.uint64(), [0, 2**64 - 1]),
            (TensorProto.BOOL, pa.bool_(), [True, False]),
            (STRING, pa.string(), ["", "é😀", "a\0b", "x" * 1_000_000]),
        ],
        ids=lambda value: str(value) if isinstance(value, pa.DataType) else "",
    )
    @pytest.mark.parametrize("shape", [["n"], ["n", 1], ["n", 2]], ids=str)
    def test_every_type_goes_in_and_comes_out_unchanged(
        self, write: Write, type_: int, arrow: pa.DataType, values: list[Any], shape: Shape
    ) -> None:
        pairs = shape == ["n", 2]
        predictor = loaded(
            write([node("Identity", "x", "y")], {"x": (type_, shape)}, {"y": (type_, shape)}), *("ab" if pairs else "a")
        )

        answer = score(predictor, {"a": pa.array(values, arrow), "b": pa.array(values[::-1], arrow)})["y"]

        assert set(predictor.input_schema.types) == {arrow}
        assert answer == ([list(pair) for pair in zip(values, values[::-1], strict=True)] if pairs else values)

    def test_a_slice_is_scored_as_the_rows_that_it_is(self, weighted: str) -> None:
        predictor = loaded(weighted, "a", "b", "c")
        rows = pa.record_batch({name: pa.array(np.arange(10), pa.float32()) for name in "abc"})

        assert predictor.predict(rows.slice(7, 2)).to_pydict() == {"y": [777.0, 888.0]}


class TestInputsThatDoNotFit:
    @pytest.mark.parametrize(
        ("features", "text"),
        [
            ((), "takes 3 features a row in its input 'x'; name 3 columns in model.features"),
            (("a",), "takes 3 feature(s) a row in its input 'x', but model.features names 1: a"),
            (("a", "b", "c", "d"), "takes 3 feature(s) a row in its input 'x', but model.features names 4: a, b, c, d"),
        ],
        ids=["none", "too few", "too many"],
    )
    def test_another_number_of_features_than_the_tensor_takes(
        self, weighted: str, features: tuple[str, ...], text: str
    ) -> None:
        with pytest.raises(SchemaMismatch) as caught:
            loaded(weighted, *features, columns=dict.fromkeys("abcdx", pa.float64()))
        assert str(caught.value) == f"model {weighted} {text}"

    def test_several_features_for_a_model_that_takes_one_value(self, write: Write) -> None:
        path = write([node("Neg", "x", "y")], {"x": (FLOAT, ["n"])}, {"y": (FLOAT, ["n"])})

        with pytest.raises(SchemaMismatch, match=r"takes 1 feature\(s\) a row in its input 'x', but .* names 2: a, b"):
            loaded(path, "a", "b")

    def test_another_number_of_features_than_inputs(self, write: Write) -> None:
        path = write([node("Add", "a b", "y")], {"a": (FLOAT, ["n"]), "b": (FLOAT, ["n"])}, {"y": (FLOAT, ["n"])})

        with pytest.raises(SchemaMismatch) as caught:
            loaded(path, "a")
        assert str(caught.value) == (
            f"model {path} has 2 inputs (a, b), but model.features names 1; "
            "name one for each, in this order, or leave it out; where an input takes several, write {a: [column, …], …}"
        )

    @pytest.mark.parametrize(
        ("inputs", "text"),
        [
            ({"a": (FLOAT, ["n"]), "b": (FLOAT, ["n", 3])}, "takes 3 features a row in its input 'b'"),
            (
                {"a": (FLOAT, ["n", 3, 3])},
                "input 'a' has shape ['n', 3, 3]; feed it from one column of fixed-size lists",
            ),
            ({"a": (FLOAT, [4]), "b": (FLOAT, [5])}, "takes 4 and 5 rows in its inputs; export it"),
            ({"a": (TensorProto.COMPLEX64, ["n"])}, "not a readable ONNX model"),
        ],
        ids=["wide", "deep", "two lengths", "complex"],
    )
    def test_an_input_that_is_no_column(self, write: Write, inputs: dict[str, tuple[int, Shape]], text: str) -> None:
        nodes = [node("Identity", name, f"{name}_out") for name in inputs]
        path = write(nodes, inputs, {f"{name}_out": of for name, of in inputs.items()})

        with pytest.raises(PredictorError, match=re.escape(text)):
            loaded(path, *(("x",) if len(inputs) == 1 else ()), columns=dict.fromkeys("abx", pa.float64()))

    def test_a_model_without_inputs(self, write: Write) -> None:
        constant = numpy_helper.from_array(np.zeros((2, 1), np.float32))
        path = write([node("Constant", "", "y", value=constant)], {}, {"y": (FLOAT, [2, 1])})

        with pytest.raises(SchemaMismatch, match="has no input"):
            loaded(path)


class TestOutputs:
    def test_one_value_a_row_is_a_column_of_scalars_and_more_are_lists_of_a_fixed_length(self, write: Write) -> None:
        shapes: dict[str, tuple[list[int], Shape]] = {
            "flat": ([-1], ["n"]),
            "narrow": ([-1, 1], ["n", 1]),
            "thin": ([-1, 1, 1], ["n", 1, 1]),
            "wide": ([-1, 6], ["n", 6]),
            "deep": ([-1, 2, 3], ["n", 2, 3]),
        }
        nodes = [node("ReduceSum", "x axis", "sum", keepdims=1)]
        for name, (to, _) in shapes.items():
            nodes.append(node("Reshape", f"{'sum' if np.prod(to) == -1 else 'x'} {name}_to", name))
        path = write(
            nodes,
            {"x": (FLOAT, ["n", 6])},
            {name: (FLOAT, shape) for name, (_, shape) in shapes.items()},
            axis=np.array([1], np.int64),
            **{f"{name}_to": np.array(to, np.int64) for name, (to, _) in shapes.items()},
        )
        predictor = loaded(path, *"abcdef")

        deep = pa.list_(pa.list_(pa.float32(), 3), 2)
        assert predictor.output_schema == pa.schema(
            [(name, pa.float32()) for name in ("flat", "narrow", "thin")]
            + [("wide", pa.list_(pa.float32(), 6)), ("deep", deep)]
        )
        assert score(predictor, {name: [i, 10 * i] for i, name in enumerate("abcdef")}) == {
            **{name: [15.0, 150.0] for name in ("flat", "narrow", "thin")},
            "wide": [[0, 1, 2, 3, 4, 5], [0, 10, 20, 30, 40, 50]],
            "deep": [[[0, 1, 2], [3, 4, 5]], [[0, 10, 20], [30, 40, 50]]],
        }

    @pytest.fixture
    def widening(self, write: Write) -> str:
        """Repeats x three times; how often is known only once it ran."""
        return write(
            [
                node("Mul", "x zero", "zeros"),
                node("ReduceSum", "zeros", "nothing", keepdims=0),
                node("Cast", "nothing", "nothing_int", to=INT64),
                node("Add", "times nothing_int", "repeats"),
                node("Tile", "x repeats", "y"),
            ],
            {"x": (FLOAT, ["n", 1])},
            {"y": (FLOAT, ["n", "m"])},
            zero=np.array(0, np.float32),
            times=np.array([1, 3], np.int64),
        )

    def test_a_width_that_is_not_declared_is_learnt_from_a_call_with_zeros(self, widening: str) -> None:
        assert ort.InferenceSession(widening).get_outputs()[0].shape == ["n", "m"]

        predictor = loaded(widening)

        assert predictor.output_schema == pa.schema([("y", pa.list_(pa.float32(), 3))])
        assert score(predictor, {"x": [1.0, 2.0]}) == {"y": [[1, 1, 1], [2, 2, 2]]}

    def picky(self, write: Write, shape: Shape) -> str:
        """Looks up table[100 - x]: zero is out of bounds."""
        return write(
            [node("Sub", "hundred x", "index"), node("Gather", "table index", "y")],
            {"x": (INT64, ["n"])},
            {"y": (FLOAT, shape)},
            hundred=np.array(100, np.int64),
            table=np.array([5, 6, 7], np.float32),
        )

    def test_a_model_that_refuses_zeros_is_taken_by_what_it_declares(self, write: Write) -> None:
        predictor = loaded(self.picky(write, ["n"]))

        assert score(predictor, {"x": [99, 100]}) == {"y": [6.0, 5.0]}

    def test_a_model_that_refuses_zeros_and_declares_nothing_is_refused(self, write: Write) -> None:
        path = write(
            [
                node("Sub", "hundred x", "index"),
                node("Gather", "table index", "zeros"),
                node("ReduceMax", "zeros", "zero", keepdims=0),
                node("Add", "times zero", "repeats"),
                node("Tile", "x repeats", "y"),
            ],
            {"x": (INT64, ["n", 1])},
            {"y": (INT64, None)},
            hundred=np.array(100, np.int64),
            table=np.array([0, 0], np.int64),
            times=np.array([1, 3], np.int64),
        )

        with pytest.raises(SchemaMismatch, match="output 'y' has rows of unknown length"):
            loaded(path)

    def test_so_it_is_when_it_does_not_even_declare_how_many_axes_there_are(self, write: Write) -> None:
        path = write(
            [
                node("Sub", "hundred x", "index"),
                node("Gather", "table index", "zeros"),
                node("ReduceMax", "zeros", "zero", keepdims=0),
                node("Add", "two zero", "axes"),
                node("Slice", "shape from axes", "to"),
                node("Reshape", "x to", "y"),
            ],
            {"x": (INT64, ["n"])},
            {"y": (INT64, None)},
            hundred=np.array(100, np.int64),
            table=np.array([0, 0], np.int64),
            two=np.array([2], np.int64),
            shape=np.array([-1, 1, 1], np.int64),
            **{"from": np.array([0], np.int64)},
        )
        assert ort.InferenceSession(path).get_outputs()[0].shape == []

        with pytest.raises(SchemaMismatch, match=r"output 'y' has rows of unknown length \[\]"):
            loaded(path)

    def test_one_answer_for_all_rows_is_refused_before_any_is_read(self, write: Write) -> None:
        path = write([node("ReduceMean", "x", "y", keepdims=1)], {"x": (FLOAT, ["n", 1])}, {"y": (FLOAT, [1, 1])})

        with pytest.raises(SchemaMismatch) as caught:
            loaded(path)
        assert str(caught.value) == (
            f"model {path}: output 'y' has shape [1, 1] for 7 row(s), and each row needs an answer of its own; "
            f"export it so, or choose others in model.outputs"
        )

    def test_answers_that_lie_across_are_refused_before_any_row_is_read(self, write: Write) -> None:
        path = write([node("Transpose", "x", "y")], {"x": (FLOAT, ["n", 2])}, {"y": (FLOAT, [2, "n"])})

        with pytest.raises(SchemaMismatch, match=r"output 'y' has shape \[2, 7\] for 7 row"):
            loaded(path, "a", "b")

    def test_as_many_values_in_another_order_break_the_contract(self, write: Write) -> None:
        # As wide as the call with zeros is long, so that it looks right there.
        path = write([node("Transpose", "x", "y")], {"x": (FLOAT, ["n", 7])}, {"y": (FLOAT, [7, "n"])})
        predictor = loaded(path, *"abcdefg")

        with pytest.raises(WrongAnswer) as caught:
            score(predictor, {name: [1.0, 2.0] for name in "abcdefg"})
        assert str(caught.value) == "model output 'y' has shape [7, 2], not 2 row(s) of 7 value(s)"

    def test_answers_of_another_length_than_in_the_first_call_break_the_contract(self, write: Write) -> None:
        path = write(
            [
                node("ReduceMax", "x", "most", keepdims=0),
                node("Cast", "most", "most_int", to=INT64),
                node("Add", "times most_int", "repeats"),
                node("Tile", "x repeats", "y"),
            ],
            {"x": (FLOAT, ["n", 1])},
            {"y": (FLOAT, ["n", "m"])},
            times=np.array([1, 1], np.int64),
        )
        predictor = loaded(path)

        assert score(predictor, {"x": [0.0]}) == {"y": [0.0]}
        with pytest.raises(WrongAnswer) as caught:
            score(predictor, {"x": [0.0, 1.0]})
        assert str(caught.value) == "model output 'y' has shape [4, 2], not 2 row(s) of 1 value(s)"

    def test_a_row_without_a_value_is_refused(self, write: Write) -> None:
        path = write(
            [node("Slice", "x from to axis", "y")],
            {"x": (FLOAT, ["n", 1])},
            {"y": (FLOAT, ["n", 0])},
            **{"from": np.array([0], np.int64), "to": np.array([0], np.int64), "axis": np.array([1], np.int64)},
        )

        with pytest.raises(SchemaMismatch, match="output 'y' has no value a row"):
            loaded(path)

    def sequence(self, write: Write, *parts: str) -> str:
        """A sequence of tensors, and one plain output."""
        path = write(
            [node("Neg", "x", "minus"), node("SequenceConstruct", " ".join(parts), "y")],
            {"x": (FLOAT, ["n", 2])},
            {"minus": (FLOAT, ["n", 2])},
            three=np.float32([1, 2, 3]),
        )
        model = onnx.load(path)
        model.graph.output.append(helper.make_tensor_sequence_value_info("y", FLOAT, None))
        onnx.save_model(model, path)
        return path

    def test_a_sequence_of_tensors_is_a_column_for_each(self, write: Write) -> None:
        predictor = loaded(self.sequence(write, "x", "minus"), "a", "b", outputs=("y",))

        assert score(predictor, {"a": [1.0], "b": [2.0]}) == {"y_0": [[1.0, 2.0]], "y_1": [[-1.0, -2.0]]}

    def test_a_sequence_that_is_no_column_is_refused_unless_others_are_chosen(self, write: Write) -> None:
        path = self.sequence(write, "three")

        with pytest.raises(SchemaMismatch, match=r"output 'y_0' has shape \[3\] for 7 row"):
            loaded(path, "a", "b")
        assert score(loaded(path, "a", "b", outputs=("minus",)), {"a": [1.0], "b": [2.0]}) == {"minus": [[-1.0, -2.0]]}


class TestClassifiers:
    FEATURES = np.random.default_rng(3).normal(size=(200, 2)).astype(np.float32)

    @pytest.fixture
    def classifier(self) -> LogisticRegression:
        return LogisticRegression().fit(self.FEATURES, np.where(self.FEATURES.sum(axis=1) > 0, "stays", "leaves"))

    def save(self, classifier: LogisticRegression, folder: Path, zipmap: bool) -> str:
        model = to_onnx(classifier, self.FEATURES[:1], options={"zipmap": zipmap}, target_opset=OPSET)
        onnx.save_model(model, folder / "classifier.onnx")
        return str(folder / "classifier.onnx")

    def test_labels_and_probabilities_are_those_of_scikit_learn(
        self, classifier: LogisticRegression, tmp_path: Path
    ) -> None:
        predictor = loaded(self.save(classifier, tmp_path, zipmap=False), "a", "b")

        answer = score(predictor, {"a": self.FEATURES[:, 0], "b": self.FEATURES[:, 1]})

        assert predictor.output_schema == pa.schema(
            [("label", pa.string()), ("probabilities", pa.list_(pa.float32(), 2))]
        )
        assert answer["label"] == classifier.predict(self.FEATURES).tolist()
        np.testing.assert_allclose(answer["probabilities"], classifier.predict_proba(self.FEATURES), atol=1e-6)

    @pytest.mark.parametrize(
        ("labels", "columns"),
        [
            (("leaves", "stays"), ["prob_leaves", "prob_stays"]),
            ((0, 1), ["prob_0", "prob_1"]),
            ((-7, 2**40), ["prob_-7", f"prob_{2**40}"]),
            (("", "à b/c"), ["prob_", "prob_à b/c"]),
        ],
        ids=["text", "numbers", "odd numbers", "odd text"],
    )
    def test_a_map_for_each_row_is_a_column_for_each_class(
        self, tmp_path: Path, labels: tuple[Any, Any], columns: list[str]
    ) -> None:
        classifier = LogisticRegression().fit(self.FEATURES, np.where(self.FEATURES.sum(axis=1) > 0, *labels))
        predictor = loaded(self.save(classifier, tmp_path, zipmap=True), "a", "b")

        answer = score(predictor, {"a": self.FEATURES[:, 0], "b": self.FEATURES[:, 1]})

        label = pa.string() if isinstance(labels[0], str) else pa.int64()
        assert predictor.output_schema == pa.schema(
            [("output_label", label), *((name, pa.float32()) for name in columns)]
        )
        assert answer["output_label"] == classifier.predict(self.FEATURES).tolist()
        expected = classifier.predict_proba(self.FEATURES).T.tolist()
        for name, each in zip(columns, classifier.classes_.argsort(), strict=True):
            place = columns.index(f"prob_{classifier.classes_[each]}")
            np.testing.assert_allclose(answer[columns[place]], expected[each], atol=1e-6)
            assert name in answer

    def test_it_can_be_chosen_renamed_and_taken_in_part(self, classifier: LogisticRegression, tmp_path: Path) -> None:
        path = self.save(classifier, tmp_path, zipmap=True)
        names = {
            ("output_probability",): ["prob_leaves", "prob_stays"],
            ("prob_stays", "output_label"): ["prob_stays", "output_label"],
        }
        for chosen, columns in names.items():
            assert loaded(path, "a", "b", outputs=chosen).output_schema.names == columns
        named = loaded(path, "a", "b", outputs={"output_probability": ("gone", "here"), "output_label": "said"})
        assert named.output_schema.names == ["gone", "here", "said"]
        assert loaded(path, "a", "b", outputs={"prob_stays": "p"}).output_schema.names == ["p"]
        with pytest.raises(
            SchemaMismatch, match=r"names 1 column\(s\) for output 'output_probability' .* gives 2: prob_l"
        ):
            loaded(path, "a", "b", outputs={"output_probability": "p"})

    @pytest.mark.parametrize("labels", [(0, 1), ("no", "yes"), (0, 1, 2)], ids=str)
    def test_lightgbm_by_its_own_converter(self, tmp_path: Path, labels: tuple[Any, ...]) -> None:
        lightgbm = pytest.importorskip("lightgbm")
        converters = pytest.importorskip("onnxmltools")
        from onnxmltools.convert.common.data_types import FloatTensorType

        target = np.array(labels)[np.arange(200) % len(labels)]
        model = lightgbm.LGBMClassifier(n_estimators=2, verbose=-1).fit(self.FEATURES, target)
        exported = converters.convert_lightgbm(model, initial_types=[("input", FloatTensorType([None, 2]))])
        (tmp_path / "model.onnx").write_bytes(exported.SerializeToString())

        answer = score(
            loaded(str(tmp_path / "model.onnx"), "a", "b"), {"a": self.FEATURES[:, 0], "b": self.FEATURES[:, 1]}
        )

        assert list(answer) == ["label", *(f"prob_{label}" for label in labels)]
        assert answer["label"] == model.predict(self.FEATURES).tolist()
        np.testing.assert_allclose(
            np.transpose([answer[f"prob_{label}"] for label in labels]), model.predict_proba(self.FEATURES), atol=1e-5
        )

    def test_two_maps_of_the_same_classes_have_to_be_named_apart(self, tmp_path: Path) -> None:
        path = self.two_maps(tmp_path)

        with pytest.raises(SchemaMismatch, match="two of its outputs would be column 'prob_0'; name them apart"):
            loaded(path, "a", "b")
        named = loaded(path, "a", "b", outputs={"p": ("p0", "p1"), "q": ("q0", "q1")})
        assert score(named, {"a": [1.0], "b": [2.0]}) == {"p0": [1.0], "p1": [2.0], "q0": [-1.0], "q1": [-2.0]}

    def two_maps(self, folder: Path) -> str:
        path = save(
            folder / "maps.onnx",
            [node("Identity", "x", "r"), node("Neg", "x", "s")],
            {"x": (FLOAT, ["n", 2])},
            {"s": (FLOAT, ["n", 2])},
        )
        model = onnx.load(path)
        del model.graph.output[:]
        element = helper.make_map_type_proto(INT64, helper.make_tensor_type_proto(FLOAT, []))
        for tensor, name in (("r", "p"), ("s", "q")):
            model.graph.node.append(
                helper.make_node("ZipMap", [tensor], [name], domain="ai.onnx.ml", classlabels_int64s=[0, 1])
            )
            model.graph.output.append(helper.make_value_info(name, helper.make_sequence_type_proto(element)))
        model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
        onnx.save_model(model, path)
        return path

    def test_maps_that_cannot_be_taken_off_are_read_as_they_are(
        self, classifier: LogisticRegression, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = self.save(classifier, tmp_path, zipmap=True)
        rows = {"a": self.FEATURES[:20, 0], "b": self.FEATURES[:20, 1]}
        expected = score(loaded(path, "a", "b"), rows)
        monkeypatch.setattr("predictors.onnx_file.without_zipmaps", lambda model: (model, {}))

        assert score(loaded(path, "a", "b"), rows) == expected

    def test_a_tenants_classifier_is_read_within_its_bounds(
        self, classifier: LogisticRegression, tmp_path: Path
    ) -> None:
        path = self.save(classifier, tmp_path, zipmap=True)

        predictor = loaded(path, "a", "b", within=Bounds((str(tmp_path),)))

        assert predictor.output_schema.names == ["output_label", "prob_leaves", "prob_stays"]


class TestChosenOutputs:
    @pytest.fixture
    def several(self, write: Write) -> str:
        """One value, three of them, and one answer for all rows."""
        return write(
            [
                node("Neg", "x", "minus"),
                node("ReduceSum", "x axis", "total", keepdims=1),
                node("ReduceMax", "x", "most", keepdims=0),
            ],
            {"x": (FLOAT, ["n", 3])},
            {"minus": (FLOAT, ["n", 3]), "total": (FLOAT, ["n", 1]), "most": (FLOAT, [])},
            axis=np.array([1], np.int64),
        )

    @pytest.mark.parametrize(
        ("outputs", "expected"),
        [
            (("total",), {"total": [6.0]}),
            (("total", "minus"), {"total": [6.0], "minus": [[-1, -2, -3]]}),
            ({"total": "churn_score"}, {"churn_score": [6.0]}),
            ({"total": ("churn_score",)}, {"churn_score": [6.0]}),
            ({"minus": ("a", "b", "c"), "total": "t"}, {"a": [-1], "b": [-2], "c": [-3], "t": [6.0]}),
            ({"minus": "list"}, {"list": [[-1, -2, -3]]}),
        ],
        ids=str,
    )
    def test_they_become_columns_in_the_order_and_under_the_names_of_the_spec(
        self, several: str, outputs: Any, expected: dict[str, Any]
    ) -> None:
        predictor = loaded(several, "a", "b", "c", outputs=outputs)

        answer = score(predictor, {"a": [1], "b": [2], "c": [3]})

        assert list(answer) == list(expected)
        assert answer == expected

    @pytest.mark.parametrize(
        ("outputs", "text"),
        [
            (("totl",), "names 'totl', which model {path} does not answer; did you mean 'total'?"),
            (("score",), "names 'score', which model {path} does not answer; there are minus, total, most"),
            ({"churn": "total"}, "there are minus, total, most; the model's own name comes first: {{total: churn}}"),
            ({"minus": ("a", "b")}, "names 2 column(s) for output 'minus' of model {path}, which has 3 values a row"),
            ({"total": ("a", "b")}, "names 2 columns for output 'total' of model {path}, which has one value a row"),
            ({"total": "a", "minus": ("a", "b", "c")}, "two of its outputs would be column 'a'; name them apart"),
            (("most",), "output 'most' has shape [] for 7 row(s), and each row needs an answer of its own; export it"),
        ],
        ids=["a letter", "nothing near", "the wrong way round", "too few", "too many", "one name", "no column"],
    )
    def test_what_cannot_be_is_refused_by_name(self, several: str, outputs: Any, text: str) -> None:
        with pytest.raises(SchemaMismatch, match=re.escape(text.format(path=several))):
            loaded(several, "a", "b", "c", outputs=outputs)

    def test_the_remedy_names_the_only_output(self, weighted: str) -> None:
        with pytest.raises(SchemaMismatch, match=re.escape("to call it so, write {y: churn_score}")):
            loaded(weighted, "a", "b", "c", outputs=("churn_score",))


EMBEDDING = pa.list_(pa.float32())
FIXED = pa.list_(pa.float32(), 3)


class TestLists:
    @pytest.mark.parametrize("type_", [EMBEDDING, FIXED, pa.large_list(pa.float64()), pa.list_view(pa.int8())], ids=str)
    def test_a_column_of_lists_fills_an_input(self, weighted: str, type_: pa.DataType) -> None:
        predictor = loaded(weighted, "x", columns={"x": type_})

        assert predictor.input_schema == pa.schema([("x", FIXED)])
        assert score(predictor, {"x": pa.array([[1, 2, 3], [3, 2, 1]], type_)}) == {"y": [321.0, 123.0]}

    def test_a_row_of_another_length_is_rejected_and_its_neighbours_are_scored(self, weighted: str) -> None:
        predictor = loaded(weighted, "x", columns={"x": EMBEDDING})

        fed = feed(
            pa.record_batch({"x": pa.array([[1, 2, 3], [1, 2], [3, 2, 1]], EMBEDDING)}),
            predictor.input_schema,
            "reject",
        )

        assert [(bad.row, bad.error_type) for bad in fed.bad] == [(1, "UnfitFeature")]
        assert predictor.predict(fed.rows).to_pydict() == {"y": [321.0, 123.0]}

    @pytest.mark.parametrize("type_", [EMBEDDING, pa.list_(pa.float64(), 2)], ids=str)
    @pytest.mark.parametrize("order", ["xa", "ax"])
    def test_lists_and_single_values_fill_an_input_together(
        self, weighted: str, type_: pa.DataType, order: str
    ) -> None:
        predictor = loaded(weighted, *order, columns={"a": pa.int64(), "x": type_})

        answer = score(predictor, {"x": pa.array([[1, 2], [3, 4]], type_), "a": [5, 6]})

        assert answer == {"y": [521.0, 643.0] if order == "xa" else [215.0, 436.0]}

    @pytest.mark.parametrize(
        ("columns", "text"),
        [
            (
                {"a": pa.float32(), "b": pa.list_(pa.float32(), 3)},
                "takes 3 values a row in its input 'x', but its columns have 4: a (1), b (3)",
            ),
            ({"a": EMBEDDING, "b": EMBEDDING}, "how many values of its input 'x' come from column 'a' is not known"),
            ({"a": pa.list_(EMBEDDING)}, "input 'x' has shape ['n', 3], and column 'a' is list<"),
        ],
        ids=["too wide", "two of any length", "too deep"],
    )
    def test_columns_that_do_not_add_up_are_refused(
        self, weighted: str, columns: dict[str, pa.DataType], text: str
    ) -> None:
        with pytest.raises(SchemaMismatch, match=re.escape(text)):
            loaded(weighted, *columns, columns=columns)

    @pytest.mark.parametrize(
        ("type_", "values"),
        [
            (pa.list_(pa.list_(pa.float32(), 3), 2), [[[1, 2, 3], [4, 5, 6]]]),
            (pa.list_(pa.list_(pa.float32())), [[[1, 2, 3], [4, 5, 6]]]),
            (pa.list_(pa.float32(), 6), [[1, 2, 3, 4, 5, 6]]),
            (pa.fixed_shape_tensor(pa.float32(), [2, 3]), [[1, 2, 3, 4, 5, 6]]),
        ],
        ids=["fixed", "any", "flat", "tensor"],
    )
    def test_more_axes_take_lists_in_lists_or_all_values_in_one(
        self, write: Write, type_: pa.DataType, values: list[Any]
    ) -> None:
        path = write([node("Neg", "x", "y")], {"x": (FLOAT, ["n", 2, 3])}, {"y": (FLOAT, ["n", 2, 3])})
        predictor = loaded(path, columns={"x": type_})
        column = (
            pa.ExtensionArray.from_storage(type_, pa.array(values, type_.storage_type))
            if isinstance(type_, pa.BaseExtensionType)
            else pa.array(values, type_)
        )

        assert score(predictor, {"x": column}) == {"y": [[[-1, -2, -3], [-4, -5, -6]]]}

    def test_axes_that_are_open_are_those_of_the_column(self, write: Write) -> None:
        path = write([node("Neg", "x", "y")], {"x": (FLOAT, ["n", "a", "b"])}, {"y": (FLOAT, ["n", "a", "b"])})
        type_ = pa.list_(pa.list_(pa.float32(), 2), 1)

        predictor = loaded(path, columns={"x": type_})

        assert predictor.output_schema == pa.schema([("y", type_)])

    @pytest.fixture
    def reader(self, write: Write) -> str:
        """Sums token ids times a mask, and answers each id plus one."""
        return write(
            [
                node("Mul", "ids mask", "seen"),
                node("ReduceSum", "seen axis", "sum", keepdims=0),
                node("Add", "ids one", "next"),
            ],
            {"ids": (INT64, ["n", "k"]), "mask": (INT64, ["n", "k"])},
            {"sum": (INT64, ["n"]), "next": (INT64, ["n", "k"])},
            axis=np.array([1], np.int64),
            one=np.array(1, np.int64),
        )

    def test_lists_of_any_length_are_called_by_length_and_answered_in_order(self, reader: str) -> None:
        tokens = pa.list_(pa.int32())
        predictor = loaded(reader, columns={"ids": tokens, "mask": tokens})
        ids = [list(range(1, 1 + row % 4)) for row in range(50)]

        answer = score(
            predictor, {"ids": pa.array(ids, tokens), "mask": pa.array([[1] * len(row) for row in ids], tokens)}
        )

        assert predictor.output_schema == pa.schema([("sum", pa.int64()), ("next", pa.list_(pa.int64()))])
        assert answer == {"sum": [sum(row) for row in ids], "next": [[each + 1 for each in row] for row in ids]}

    def test_a_copy_in_another_process_knows_the_columns(self, reader: str) -> None:
        tokens = pa.list_(pa.int64())
        copy = pickle.loads(pickle.dumps(loaded(reader, columns={"ids": tokens, "mask": tokens})))

        copy.load()

        assert score(copy, {"ids": pa.array([[1, 2]], tokens), "mask": pa.array([[1, 1]], tokens)})["sum"] == [3]

    def test_a_null_list_of_unknown_length_is_rejected_where_nulls_pass(self, write: Write) -> None:
        path = write(
            [node("ReduceSum", "x axis", "y", keepdims=0)],
            {"x": (FLOAT, ["n", "k"])},
            {"y": (FLOAT, ["n"])},
            axis=np.array([1], np.int64),
        )
        predictor = loaded(path, columns={"x": EMBEDDING}, pass_nulls=True)
        rows = pa.record_batch({"x": pa.array([[1.0], None, [2.0, 3.0]], EMBEDDING)})

        with pytest.raises(RowsRejected) as caught:
            predictor.predict(rows)
        assert caught.value.rows == (1,)
        assert predictor.predict(rows.take(pa.array([0, 2]))).to_pydict() == {"y": [1.0, 5.0]}

    def test_nulls_that_pass_are_nan_within_lists_and_for_a_whole_one(self, write: Write) -> None:
        path = write([node("IsNaN", "x", "y")], {"x": (FLOAT, ["n", 2])}, {"y": (TensorProto.BOOL, ["n", 2])})
        predictor = loaded(path, columns={"x": EMBEDDING}, pass_nulls=True)

        answer = score(predictor, {"x": pa.array([[1.0, None], None, [1.0, 2.0]], EMBEDDING)})

        assert answer == {"y": [[False, True], [True, True], [False, False]]}

    def test_texts_come_in_lists_as_well(self, write: Write) -> None:
        path = write([node("Identity", "x", "y")], {"x": (STRING, ["n", 2])}, {"y": (STRING, ["n", 2])})

        assert score(loaded(path, columns={"x": pa.list_(pa.string())}), {"x": [["a", "é"]]}) == {"y": [["a", "é"]]}


class TestColumnsForEachInput:
    @pytest.fixture
    def mixed(self, write: Write) -> str:
        """Two numbers, and a text."""
        return write(
            [node("ReduceSum", "num axis", "sum", keepdims=1), node("Identity", "cat", "where")],
            {"num": (FLOAT, ["n", 2]), "cat": (STRING, ["n", 1])},
            {"sum": (FLOAT, ["n", 1]), "where": (STRING, ["n", 1])},
            axis=np.array([1], np.int64),
        )

    ROWS = {"a": [1.0], "b": [2.0], "c": ["x"], "cat": ["y"]}

    @pytest.mark.parametrize(
        ("features", "where"),
        [
            ({"num": ("a", "b"), "cat": ("c",)}, "x"),
            ({"cat": ("c",), "num": ("b", "a")}, "x"),
            ({"num": ("a", "b")}, "y"),
        ],
        ids=["all", "in any order", "one of them"],
    )
    def test_an_input_takes_the_columns_named_for_it_or_that_of_its_name(
        self, mixed: str, features: dict[str, tuple[str, ...]], where: str
    ) -> None:
        columns = {name: pa.array(values).type for name, values in self.ROWS.items()}

        assert score(loaded(mixed, features=features, columns=columns), self.ROWS) == {"sum": [3.0], "where": [where]}

    def test_an_input_that_takes_several_and_is_not_named_is_asked_for(self, mixed: str) -> None:
        with pytest.raises(SchemaMismatch, match="takes 2 features a row in its input 'num'; name 2 columns in model"):
            loaded(mixed, features={"cat": ("c",)}, columns={"c": pa.string()})

    def test_an_input_that_is_not_there_is_named_with_the_nearest(self, mixed: str) -> None:
        with pytest.raises(
            SchemaMismatch, match=r"names an input 'nums', which .* does not have; did you mean 'num'\?"
        ):
            loaded(mixed, features={"nums": ("a", "b")})


class TestFixedNumberOfRows:
    @pytest.mark.parametrize("fixed", [1, 4, 10])
    @pytest.mark.parametrize("rows", [1, 3, 4, 5, 8, 23])
    def test_calls_of_any_length_are_cut_and_padded_to_it(self, write: Write, fixed: int, rows: int) -> None:
        path = write(
            [node("Neg", "x", "y"), node("ReduceSum", "x axis", "sum", keepdims=0)],
            {"x": (FLOAT, [fixed, 2])},
            {"y": (FLOAT, [fixed, 2]), "sum": (FLOAT, [fixed])},
            axis=np.array([1], np.int64),
        )
        values = list(range(rows))

        answer = score(loaded(path, "a", "b"), {"a": values, "b": [100.0] * rows})

        assert answer == {"y": [[-v, -100.0] for v in values], "sum": [v + 100.0 for v in values]}

    def test_a_model_for_no_row_is_refused(self, write: Write) -> None:
        path = write([node("Neg", "x", "y")], {"x": (FLOAT, [0, 1])}, {"y": (FLOAT, [0, 1])})

        with pytest.raises(SchemaMismatch, match="takes 0 rows in its inputs"):
            loaded(path)

    @pytest.mark.parametrize("rows", ["n", None, -1], ids=str)
    def test_a_name_nothing_or_less_than_nothing_as_the_number_of_rows_is_any(
        self, write: Write, rows: int | None
    ) -> None:
        path = write([node("Neg", "x", "y")], {"x": (FLOAT, [rows, 1])}, {"y": (FLOAT, [rows, 1])})

        assert score(loaded(path), {"x": [1.0, 2.0, 3.0]}) == {"y": [-1.0, -2.0, -3.0]}


class TestNulls:
    def test_a_null_that_passes_arrives_as_nan(self, write: Write) -> None:
        path = write(
            [node("IsNaN", "x", "nan"), node("Identity", "x", "y")],
            {"x": (FLOAT, ["n", 2])},
            {"nan": (TensorProto.BOOL, ["n", 2]), "y": (FLOAT, ["n", 2])},
        )

        answer = score(loaded(path, "a", "b", pass_nulls=True), {"a": [1.0, None], "b": [None, 4]})

        assert answer["nan"] == [[False, True], [True, False]]
        assert (answer["y"][0][0], answer["y"][1][1]) == (1.0, 4.0)

    @pytest.mark.parametrize("type_", [FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16])
    def test_every_float_has_a_nan(self, write: Write, type_: int) -> None:
        path = write([node("IsNaN", "x", "y")], {"x": (type_, ["n"])}, {"y": (TensorProto.BOOL, ["n"])})

        assert score(loaded(path, pass_nulls=True), {"x": [1, None]}) == {"y": [False, True]}

    @pytest.mark.parametrize("type_", [INT64, STRING, TensorProto.BOOL])
    def test_a_type_without_nan_cannot_pass_nulls(self, write: Write, type_: int) -> None:
        path = write([node("Identity", "x", "y")], {"x": (type_, ["n"])}, {"y": (type_, ["n"])})

        with pytest.raises(
            SchemaMismatch, match=r"model.nulls is 'pass', but the model takes column 'x' as \w+, which"
        ):
            loaded(path, pass_nulls=True)

    def test_a_nan_that_the_model_answers_is_a_value(self, write: Write) -> None:
        path = write([node("Log", "x", "y")], {"x": (FLOAT, ["n"])}, {"y": (FLOAT, ["n"])})

        answer = loaded(path).predict(pa.record_batch({"x": pa.array([-1.0], pa.float32())}))

        assert answer["y"].null_count == 0
        assert np.isnan(answer["y"][0].as_py())


class TestFilesThatAreNoModel:
    @pytest.mark.parametrize("name", ["missing.onnx", "s3://bucket/model.onnx"], ids=["missing", "a uri"])
    def test_what_is_no_file_is_named(self, tmp_path: Path, name: str) -> None:
        path = name if "://" in name else str(tmp_path / name)

        with pytest.raises(ModelNotLoadable) as caught:
            loaded(path)
        assert str(caught.value) == f"model {path}: there is no such file"

    def test_a_folder_or_a_class_in_place_of_a_file(self, tmp_path: Path) -> None:
        with pytest.raises(ModelNotLoadable, match=r"this is a folder; name the file in it$"):
            loaded(str(tmp_path))
        (tmp_path / "b.onnx").touch()
        with pytest.raises(ModelNotLoadable, match=r"this is a folder; name the file in it, such as b\.onnx$"):
            loaded(str(tmp_path))
        with pytest.raises(ModelNotLoadable, match="if this is a class, score it with flavor python"):
            loaded("models.churn:Churn")

    @pytest.mark.parametrize(
        "content",
        [b"\x08\x07", b"\0" * 1000, b"my shopping list\n" * 100, np.random.default_rng(1).bytes(10_000)],
        ids=["no graph", "zeros", "text", "random"],
    )
    def test_bytes_that_are_no_model(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "model.onnx"
        path.write_bytes(content)

        with pytest.raises(ModelNotLoadable) as caught:
            loaded(str(path))
        assert str(caught.value).startswith(f"model {path} is not a readable ONNX model: ")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("content", "text"),
        [
            (b"", "is no ONNX model but an empty file; copy"),
            (
                pickle.dumps({"a": 1}),
                "is no ONNX model but a pickle (of scikit-learn, joblib or torch?); export it to ONNX",
            ),
            (b"<!DOCTYPE html><html>", "is no ONNX model but an HTML page; the download gave a page"),
            (b"version https://git-lfs.github.com/spec/v1\noid", "but a pointer of Git LFS; fetch .* `git lfs pull`"),
            (b"PK\x03\x04" + b"\0" * 26 + b"m/data.pkl", "but a checkpoint of PyTorch; export .* torch.onnx.export"),
            (b"PK\x03\x04" + b"\0" * 26 + b"metadata.json", "but a model of Keras; export it with tf2onnx"),
            (b"PK\x03\x04" + b"\0" * 26 + b"notes.txt", "but a zip archive; unpack it"),
            (b"\x89HDF\r\n\x1a\n", "but an HDF5 file, as Keras saves them; export it with tf2onnx"),
            (b"tree\nversion=v4\n", "but a text model of LightGBM; convert it"),
            (b'{"learner": 1}', "but JSON .*; convert it with onnxmltools"),
        ],
        ids=["empty", "pickle", "html", "lfs", "torch", "keras", "zip", "h5", "lightgbm", "json"],
    )
    def test_a_file_of_another_kind_is_called_what_it_is(self, tmp_path: Path, content: bytes, text: str) -> None:
        path = tmp_path / "model.onnx"
        path.write_bytes(content)

        for within in (None, Bounds((str(tmp_path),))):
            with pytest.raises(ModelNotLoadable, match=text.replace("(", r"\(").replace("?)", r"\?\)")) as caught:
                loaded(str(path), within=within)
            assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            ({"ir_version": 99}, "its IR version is 99, and onnxruntime .* reads up to .*; save it with ir_version="),
            (
                {"opset": 99},
                "its opset of ai.onnx is 99, and onnxruntime .* knows up to .*; export it with target_opset=",
            ),
            (
                {"domain": "com.example"},
                "operator com.example:Foo is one of its own, and those are not loaded; export it",
            ),
            ({"op": "Divine"}, "operator Divine is not known in its opset 17; export it"),
        ],
        ids=["ir", "opset", "custom", "unknown"],
    )
    def test_a_model_for_another_runtime_is_refused_with_the_way_out(
        self, write: Write, change: dict[str, Any], text: str
    ) -> None:
        path = write([node("Neg", "x", "y")], {"x": (FLOAT, ["n"])}, {"y": (FLOAT, ["n"])})
        model = onnx.load(path)
        model.ir_version = change.get("ir_version", IR_VERSION)
        model.opset_import[0].version = change.get("opset", OPSET)
        model.graph.node[0].op_type = change.get("op", "Foo" if "domain" in change else "Neg")
        if "domain" in change:
            model.graph.node[0].domain = change["domain"]
            model.opset_import.append(helper.make_opsetid(change["domain"], 1))
        Path(path).write_bytes(model.SerializeToString())

        with pytest.raises(ModelNotLoadable, match=text):
            loaded(path)

    def test_a_model_for_the_language_of_another_machine_is_refused_with_the_way_out(self, write: Write) -> None:
        # As skl2onnx writes text vectorizers, which do so for en_US.
        lower = node("StringNormalizer", "x", "y", case_change_action="LOWER", locale="xx_XX.UTF-8")
        path = write([lower], {"x": (STRING, ["n"])}, {"y": (STRING, ["n"])})

        with pytest.raises(
            ModelNotLoadable, match=r"wants the locale xx_XX\.UTF-8, .* localedef -i xx_XX -f UTF-8 xx_"
        ):
            loaded(path)

    def test_a_model_that_is_cut_short_anywhere_is_refused_or_whole(self, weighted: str) -> None:
        content = Path(weighted).read_bytes()
        refused = 0
        for length in range(len(content)):
            Path(weighted).write_bytes(content[:length])
            try:
                answer = score(loaded(weighted, "a", "b", "c"), {"a": [1.0], "b": [2.0], "c": [3.0]})
            except (ModelNotLoadable, SchemaMismatch):
                refused += 1
            else:
                assert answer == {"y": [321.0]}

        assert refused > len(content) * 0.9

    def test_an_operator_that_nobody_knows(self, write: Write) -> None:
        path = write([node("Divine", "x", "y")], {"x": (FLOAT, ["n"])}, {"y": (FLOAT, ["n"])})

        with pytest.raises(ModelNotLoadable, match="Divine"):
            loaded(path)


class TestExternalData:
    """A model's weights may lie in files beside it; a model from elsewhere may name any file of this machine."""

    def save(self, folder: Path, location: str) -> str:
        weights = TensorProto(name="w", data_type=FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
        for key, value in {"location": location, "offset": "0", "length": "4"}.items():
            weights.external_data.add(key=key, value=value)
        graph = helper.make_graph(
            [node("Add", "x w", "y")],
            "graph",
            [helper.make_tensor_value_info("x", FLOAT, ["n"])],
            [helper.make_tensor_value_info("y", FLOAT, ["n"])],
            [weights],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        path = folder / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return str(path)

    @pytest.fixture
    def models(self, tmp_path: Path) -> Path:
        """A folder with weights inside of it, and a secret outside."""
        models = tmp_path / "models"
        (models / "sub").mkdir(parents=True)
        np.array([7], np.float32).tofile(models / "weights.bin")
        np.array([42], np.float32).tofile(tmp_path / "secret.bin")
        (models / "link.bin").symlink_to(tmp_path / "secret.bin")
        (models / "linked").symlink_to(tmp_path)
        return models

    def test_weights_beside_the_model_are_read(self, models: Path) -> None:
        assert score(loaded(self.save(models, "weights.bin")), {"x": [1.0]}) == {"y": [8.0]}

    def test_weights_that_are_missing_are_named(self, models: Path) -> None:
        path = self.save(models, "gone.bin")

        with pytest.raises(
            ModelNotLoadable, match=r"its weights lie in .*gone\.bin, and that file is missing; copy it"
        ):
            loaded(path)

    @pytest.mark.parametrize(
        "location",
        [
            "../secret.bin",
            "sub/../../secret.bin",
            "link.bin",
            "linked/secret.bin",
            "{outside}/secret.bin",
            "/proc/self/environ",
        ],
    )
    def test_a_file_outside_of_the_models_folder_is_not_read(self, models: Path, location: str) -> None:
        path = self.save(models, location.format(outside=models.parent))

        with pytest.raises(ModelNotLoadable, match=r"External data path"):
            loaded(path)

    def test_nor_is_it_by_a_path_relative_to_the_working_folder(
        self, models: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.save(models, "../secret.bin")
        monkeypatch.chdir(models)

        with pytest.raises(ModelNotLoadable, match="External data path"):
            loaded("model.onnx")


class TestWithinBounds:
    """A model that a tenant of a service has named: nothing is opened where they may not go, at whatever moment."""

    @pytest.fixture
    def own(self, tmp_path: Path) -> Path:
        """A tenant's folder with weights, a closed folder in it, and a secret beside it."""
        own = tmp_path / "own"
        for folder in (own / "sub", own / "home"):
            folder.mkdir(parents=True)
        np.array([7], np.float32).tofile(own / "weights.bin")
        np.array([8], np.float32).tofile(own / "sub" / "weights.bin")
        for secret in (own / "home" / "secret.bin", tmp_path / "secret.bin"):
            np.array([42], np.float32).tofile(secret)
        (own / "link.bin").symlink_to(own / "home" / "secret.bin")
        (own / "inwards.bin").symlink_to(own / "sub" / "weights.bin")
        return own

    def save(self, own: Path, location: str) -> str:
        return TestExternalData().save(own, location)

    def loaded(self, own: Path, path: str) -> OnnxPredictor:
        predictor = OnnxPredictor(path, within=Bounds((str(own),), closed=(str(own / "home"),)))
        predictor = pickle.loads(pickle.dumps(predictor))
        predictor.load()
        return predictor

    @pytest.mark.parametrize(("location", "weight"), [("weights.bin", 7), ("./sub/weights.bin", 8), ("inwards.bin", 8)])
    def test_weights_below_the_models_folder_are_read(self, own: Path, location: str, weight: int) -> None:
        assert score(self.loaded(own, self.save(own, location)), {"x": [1.0]}) == {"y": [1.0 + weight]}

    def test_a_model_without_such_files_is_read(self, own: Path) -> None:
        path = save(own / "plain.onnx", [node("Add", "x w", "y")], {"x": (FLOAT, ["n"])}, {"y": (FLOAT, ["n"])}, w=ONE)

        assert score(self.loaded(own, path), {"x": [1.0]}) == {"y": [2.0]}

    @pytest.mark.parametrize(
        "location",
        [
            *("home/secret.bin", "link.bin", "../secret.bin", "{own}/weights.bin/..", "sub/../../secret.bin"),
            *("/proc/self/environ", "missing.bin", "home/missing.bin", ""),
        ],
    )
    def test_other_files_are_refused_in_the_same_words_whether_they_are_there_or_not(
        self, own: Path, location: str
    ) -> None:
        path = self.save(own, location.format(own=own))

        with pytest.raises(ModelNotLoadable) as caught:
            self.loaded(own, path)
        assert str(caught.value).endswith("which is no file in the model's folder")

    def test_an_address_in_the_process_is_no_file_though_one_has_its_name(self, own: Path) -> None:
        (own / "*" / "_ORT_MEM_ADDR_").mkdir(parents=True)
        np.array([7], np.float32).tofile(own / "*" / "_ORT_MEM_ADDR_" / "*")

        with pytest.raises(ModelNotLoadable, match="no file in the model's folder"):
            self.loaded(own, self.save(own, "*/_ORT_MEM_ADDR_/*"))

    def test_tensors_of_inner_graphs_are_not_read_from_other_files(self, own: Path) -> None:
        weights = TensorProto(name="w", data_type=FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
        weights.external_data.add(key="location", value="weights.bin")
        constant = helper.make_node("Constant", [], ["w"], value=weights)
        path = save(own / "m.onnx", [constant, node("Add", "x w", "y")], {"x": (FLOAT, ["n"])}, {"y": (FLOAT, ["n"])})

        with pytest.raises(ModelNotLoadable, match=r"inner graph in another file, 'weights\.bin'"):
            self.loaded(own, path)

    @pytest.mark.parametrize("name", ["home/model.onnx", "linked.onnx", "elsewhere/model.onnx"])
    def test_a_model_that_lies_elsewhere_is_refused(self, own: Path, name: str) -> None:
        save(own / "home" / "model.onnx", [node("Identity", "x", "y")], {"x": (FLOAT, ["n"])}, {"y": (FLOAT, ["n"])})
        (own / "linked.onnx").symlink_to(own / "home" / "model.onnx")
        (own / "elsewhere").symlink_to(own / "home")

        with pytest.raises(ModelNotLoadable, match="leads out of the folders"):
            self.loaded(own, str(own / name))

    def test_what_takes_the_files_names_while_the_runtime_loads_is_not_read(
        self, own: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path, load = self.save(own, "weights.bin"), ort.InferenceSession

        def exchange_and_load(*args: Any, **named: Any) -> ort.InferenceSession:
            (own / "weights.bin").unlink()
            (own / "weights.bin").symlink_to(own / "home" / "secret.bin")
            self.save(own, "home/secret.bin")
            return load(*args, **named)

        monkeypatch.setattr(ort, "InferenceSession", exchange_and_load)
        monkeypatch.chdir(own)

        assert score(self.loaded(own, path), {"x": [1.0]}) == {"y": [8.0]}


TENSOR = np.random.default_rng(5).normal(size=(5000, 3)).astype(np.float32)
ROWS = pa.record_batch({name: np.ascontiguousarray(TENSOR[:, i]) for i, name in enumerate("abc")})


@pytest.fixture(scope="module")
def predictor(perceptron: str) -> OnnxPredictor:
    return loaded(perceptron, "a", "b", "c")


class TestAnswers:
    @pytest.mark.parametrize("call_rows", [1, 7, 1000, 5000])
    def test_they_are_those_of_a_plain_loop_to_the_last_bit(
        self, perceptron: str, predictor: OnnxPredictor, call_rows: int
    ) -> None:
        session = ort.InferenceSession(perceptron, providers=["CPUExecutionProvider"])
        span = predictor.prepare(ROWS)

        ranges = [(start, min(start + call_rows, 5000)) for start in range(0, 5000, call_rows)]
        for start, stop in ranges:
            span.score(start, stop)
        plain = [session.run(None, {"x": TENSOR[start:stop]})[0][:, 0] for start, stop in ranges]

        assert span.answers(ranges)["score"].to_numpy().tobytes() == np.concatenate(plain).tobytes()

    @settings(deadline=None)
    @given(edges=st.sets(st.integers(0, 100), max_size=12))
    def test_ranges_of_a_span_are_answered_as_slices_by_themselves(
        self, predictor: OnnxPredictor, edges: set[int]
    ) -> None:
        ranges = list(zip(*[iter(sorted(edges))] * 2, strict=False))
        span = predictor.prepare(ROWS.slice(50, 100))

        for start, stop in ranges:
            span.score(start, stop)
        answers = span.answers(ranges)

        alone = [predictor.predict(ROWS.slice(50 + start, stop - start)) for start, stop in ranges]
        assert answers.schema == predictor.output_schema
        assert answers.to_pylist() == [row for answer in alone for row in answer.to_pylist()]

    def test_a_span_is_prepared_at_once(self, predictor: OnnxPredictor) -> None:
        assert isinstance(predictor, SpanPredictor)

    def test_one_session_answers_several_threads_at_once(self, predictor: OnnxPredictor) -> None:
        expected = predictor.predict(ROWS)
        start = threading.Barrier(8)

        def ask(_: int) -> bool:
            start.wait(30)
            return all(predictor.predict(ROWS).equals(expected) for _ in range(20))

        with ThreadPoolExecutor(8) as threads:
            assert all(threads.map(ask, range(8)))


class TestLifeCycle:
    def test_a_loaded_predictor_is_pickled_without_its_model(self, weighted: str) -> None:
        predictor = loaded(weighted, "a", "b", "c")

        copy = pickle.loads(pickle.dumps(predictor))

        assert copy == predictor
        with pytest.raises(ModelNotLoadable, match="was not loaded"):
            copy.predict(pa.record_batch({name: pa.array([1.0], pa.float32()) for name in "abc"}))
        copy.load()
        assert score(copy, {"a": [1.0], "b": [2.0], "c": [3.0]}) == {"y": [321.0]}

    def test_what_is_pickled_is_small(self, perceptron: str) -> None:
        predictor = loaded(perceptron, "a", "b", "c")

        assert len(pickle.dumps(predictor)) < 500

    def test_a_predictor_may_be_used_by_many_threads(self, weighted: str) -> None:
        assert OnnxPredictor(weighted).thread_safe

    def test_a_model_may_lie_at_a_path_with_spaces_and_accents(self, tmp_path: Path) -> None:
        (tmp_path / "my modèles").mkdir()
        of = {"x": (FLOAT, ["n"])}, {"y": (FLOAT, ["n"])}
        path = save(tmp_path / "my modèles" / "a b.onnx", [node("Neg", "x", "y")], *of)

        assert score(loaded(path), {"x": [1.0]}) == {"y": [-1.0]}


HUNGRY = """
import resource, sys
from pathlib import Path

import numpy as np
import pyarrow as pa

from predictors.onnx import OnnxPredictor
from predictors.pool.inline import InlinePool
from predictors.recovery import RetryPolicy

pool = InlinePool(
    OnnxPredictor(sys.argv[1]), parallelism=1, batch_size=512, nulls="reject", policy=RetryPolicy(0)
)
rows = pa.record_batch({"x": np.arange(1024, dtype=np.float32)})
pool.submit(rows.slice(0, 1)).result()
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 300 * 2**20,) * 2)
answers = pool.submit(rows).result()
print(answers.bad, answers.calls, answers.predictions["y"].equals(pa.array(np.arange(1024, dtype=np.float32))))
pool.close()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds the memory of a process")
def test_a_call_that_memory_does_not_hold_is_halved_until_it_does(write: Write) -> None:
    # One row needs 1 MiB on the way: 512 of them do not fit into 300 MiB, 256 do.
    path = write(
        [node("MatMul", "x w", "large"), node("ReduceMax", "large", "y", axes=[1], keepdims=1)],
        {"x": (FLOAT, ["n", 1])},
        {"y": (FLOAT, ["n", 1])},
        w=np.ones((1, 2**18), np.float32),
    )

    ran = subprocess.run([sys.executable, "-c", HUNGRY, path], capture_output=True, text=True, timeout=120, check=False)

    assert ran.stdout.split() == ["[]", "5", "True"], ran.stderr
