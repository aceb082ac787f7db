"""The churn model of all benchmarks: a perceptron 3-32-1 with seeded weights, as an ONNX file and in NumPy."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper, save_model

from benchmarks.models import MODEL_INPUT, SCORE_COLUMN

HIDDEN_UNITS = 32
SEED = 11
# Months, dollars per month, dollars in all: the spread of each feature, so that no unit saturates.
FEATURE_SCALES = np.array([72, 120, 8640], np.float32)
# ONNX Runtime of the last two years reads both.
OPSET = 17
IR_VERSION = 9


@dataclass(frozen=True)
class Weights:
    """hidden = relu(features @ inner + inner_bias); score = sigmoid(hidden @ outer + outer_bias). All float32."""

    inner: np.ndarray  # [3, 32]
    inner_bias: np.ndarray  # [32]
    outer: np.ndarray  # [32, 1]
    outer_bias: np.ndarray  # [1]


def weights() -> Weights:
    """The same weights on every call and machine."""
    rng = np.random.default_rng(SEED)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    return Weights(
        inner=2 * normal(len(FEATURE_SCALES), HIDDEN_UNITS) / FEATURE_SCALES[:, np.newaxis],
        inner_bias=normal(HIDDEN_UNITS),
        outer=normal(HIDDEN_UNITS, 1),
        outer_bias=normal(1),
    )


def score_with_numpy(features: np.ndarray) -> np.ndarray:
    """Score float32 [n, 3] to float32 [n] without ONNX Runtime: what every program's scores are checked against."""
    w = weights()
    hidden = np.maximum(features @ w.inner + w.inner_bias, 0)
    logits = hidden @ w.outer + w.outer_bias
    scores: np.ndarray = 1 / (1 + np.exp(-logits[:, 0]))
    return scores


def write_onnx(path: Path) -> None:
    """Write the model to `path`: input `features` float32 [n, 3], output `score` float32 [n, 1]."""
    w = weights()
    graph = helper.make_graph(
        nodes=[
            helper.make_node("Gemm", [MODEL_INPUT, "inner", "inner_bias"], ["inner_sum"]),
            helper.make_node("Relu", ["inner_sum"], ["hidden"]),
            helper.make_node("Gemm", ["hidden", "outer", "outer_bias"], ["logit"]),
            helper.make_node("Sigmoid", ["logit"], [SCORE_COLUMN]),
        ],
        name="churn",
        inputs=[helper.make_tensor_value_info(MODEL_INPUT, TensorProto.FLOAT, ["n", len(FEATURE_SCALES)])],
        outputs=[helper.make_tensor_value_info(SCORE_COLUMN, TensorProto.FLOAT, ["n", 1])],
        initializer=[
            numpy_helper.from_array(array, name)
            for name, array in [
                ("inner", w.inner),
                ("inner_bias", w.inner_bias),
                ("outer", w.outer),
                ("outer_bias", w.outer_bias),
            ]
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(model, path)
