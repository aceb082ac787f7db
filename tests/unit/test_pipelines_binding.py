"""A column that the input and the model both have is named, with remedies that work as they are written."""

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pytest
import yaml

from pipelines.binding import bind
from pipelines.spec import JobSpec, ParquetInput, ParquetOutput
from predictors.base import ModelSpec, Outputs, tupled_names
from predictors.errors import SchemaMismatch
from predictors.naming import Naming

INPUT = pa.schema([("id", pa.int64()), ("x", pa.float64()), ("label", pa.int64()), ("p_0", pa.float32())])


@dataclass
class Model:
    outputs: Outputs
    answers: pa.Schema
    thread_safe: bool = True
    input_schema: pa.Schema = pa.schema([("x", pa.float64())])

    @property
    def output_schema(self) -> pa.Schema:
        return Naming.of(self.outputs, self.answers, "m").schema


@dataclass
class Source:
    schema: pa.Schema = INPUT
    closed: dict[str, str] = field(default_factory=dict)


def bound_names(answers: list[str], outputs: Outputs, columns: tuple[str, ...] | None = None) -> list[str]:
    spec = JobSpec(
        ModelSpec("m.onnx", "onnx", outputs=outputs),
        ParquetInput(("in",)),
        ParquetOutput("out", columns=columns),
    )
    model: Any = Model(outputs, pa.schema([(name, pa.list_(pa.float32(), 2)) for name in answers]))
    source: Any = Source()
    return list(bind(spec, model, source).output_schema.names)


@pytest.mark.parametrize(
    ("answers", "outputs", "columns", "message", "outputs_after"),
    [
        (
            ["label"],
            None,
            None,
            "column 'label' comes from the input and from the model; name the model's otherwise by model.outputs, as "
            "{label: label_predicted}, or list the columns to keep in output.columns, without it",
            "{label: label_predicted}",
        ),
        (
            ["label", "p_0", "p_1"],
            None,
            ("id", "label", "p_0"),
            "columns 'label', 'p_0' come from the input and from the model; choose the model's that are new by "
            "model.outputs: [p_1], or name the model's otherwise by model.outputs, as {label: label_predicted, "
            "p_0: p_0_predicted, p_1: p_1}, or take them out of output.columns",
            "{label: label_predicted, p_0: p_0_predicted, p_1: p_1}",
        ),
        (
            ["variable"],
            {"variable": "id"},
            None,
            "column 'id' comes from the input and from the model; change 'id' to 'id_predicted' in model.outputs, or "
            "list the columns to keep in output.columns, without it",
            "{variable: id_predicted}",
        ),
        (
            ["variable"],
            {"variable": ("other", "id")},
            ("id",),
            "column 'id' comes from the input and from the model; change 'id' to 'id_predicted' in model.outputs, or "
            "take it out of output.columns",
            "{variable: [other, id_predicted]}",
        ),
    ],
    ids=["one", "several", "named so", "spread so"],
)
def test_a_clash_of_columns_is_told_with_remedies_that_work(
    answers: list[str], outputs: Outputs, columns: tuple[str, ...] | None, message: str, outputs_after: str
) -> None:
    with pytest.raises(SchemaMismatch) as caught:
        bound_names(answers, outputs, columns)
    assert str(caught.value) == message
    after = bound_names(answers, tupled_names(yaml.safe_load(outputs_after)), columns)
    assert len(after) == len(set(after))
    assert "id_predicted" in after or "label_predicted" in after
