"""What a job's spec may hold, as pydantic reads it; beside each field stands what to write when it is wrong."""

import warnings
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from launcher.request.paths import local_path
from pipelines.kinds import input_kind, output_kind
from pipelines.spec import Config, Rejects
from predictors.base import Features, ModelSpec, Nulls, tupled_names
from predictors.flavors import flavor_of
from transforms.sinks.mode import Mode
from transforms.sinks.output import Output
from transforms.sources.input import Input

Flavor = Literal["onnx", "python"]

_DEFAULTS = Config()


class Part(BaseModel):
    """A mapping of which each key is known and each value is of the right type already."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class Remedy:
    """What to write instead of a wrong value; stands among the annotations of a field.

    A field without it takes one of some words, and these are the remedy.

    Args:
        text: what to write.
        each: what to write as an entry, where the field is a list or a mapping.
        shows: how much of a wrong value a message may repeat; `masked`: a URI without its secrets.
    """

    text: str
    each: str = ""
    shows: Literal["all", "masked", "nothing"] = "all"


MODEL_URI = Remedy("write a file such as churn.onnx, or module:Class")
FEATURES = Remedy("list the columns that the model reads", each="write the name of a column")
OUTPUTS = Remedy("list the model's outputs to keep, or name them: {output: column}", each="write the name of an output")
OUTPUT_COLUMN = Remedy("write the name of its column, or a list of names for its values")
DATABASE = Remedy("write postgresql://user@host/db or sqlite:///file.db", shows="masked")
QUERY = Remedy("write one SELECT")
INPUT_PATH = Remedy("write a file, a glob, a folder, or a list of them")
INPUT_SCHEMA = Remedy(
    "write the types of columns as {column: type}", each="write a type as Arrow prints it, such as date32[day]"
)
TABLE_NAME = Remedy("write table or schema.table")
FOLDER = Remedy("write a folder")
COLUMNS = Remedy("list the input columns to keep; leave it out to keep all", each="write the name of a column")
MODEL = Remedy("write the model's uri, and its flavor and features if need be")
INPUT = Remedy("write source, and where the rows are")
OUTPUT = Remedy("write destination, and where the rows go")

ARGS = Remedy("write the arguments by name")

_Text = Annotated[str, Field(min_length=1)]
_Name = Annotated[str, Field(min_length=1, max_length=128)]


class ModelPart(Part):
    """Which model scores the rows, and how it is fed."""

    uri: Annotated[_Text, MODEL_URI]
    flavor: Flavor | None = None
    # Checked by `feature_mistakes` and `output_mistakes`: a union's errors name each branch.
    features: Annotated[Any, FEATURES] = None
    nulls: Nulls = "reject"
    outputs: Annotated[Any, OUTPUTS] = None
    args: Annotated[
        dict[_Name, Any],
        Field(
            max_length=100,
            description="Keyword arguments of a Python class's constructor; no secrets.",
            examples=[{"threshold": 0.5}],
        ),
        ARGS,
    ] = {}

    def spec(self) -> ModelSpec:
        """The model, once nothing is wrong with it."""
        flavor = self.flavor or flavor_of(self.uri)
        assert flavor is not None
        outputs = tupled_names(self.outputs)
        model = ModelSpec(self.uri, flavor, _features(self.features), self.nulls, outputs=outputs, args=self.args)
        return model.with_paths(lambda each: local_path(each.path))


class SqlInputPart(Part):
    """The rows of one query."""

    source: Literal["sql"]
    connection: Annotated[_Text, DATABASE]
    query: Annotated[_Text, QUERY]


with warnings.catch_warnings():
    # The field is called as a method of old of pydantic's models is, which nothing here calls.
    warnings.filterwarnings("ignore", message='Field name "schema"')

    class ParquetInputPart(Part):
        """The rows of Parquet files."""

        source: Literal["parquet"]
        # Checked by `path_mistakes` and `schema_mistakes`: a union's errors name each branch.
        path: Annotated[Any, INPUT_PATH]
        schema: Annotated[Any, INPUT_SCHEMA] = None


class TableOutputPart(Part):
    """A table of a database."""

    destination: Literal["table"]
    connection: Annotated[_Text | None, DATABASE] = None
    table_name: Annotated[_Text, TABLE_NAME]
    mode: Mode = "error_if_exists"
    columns: Annotated[list[_Text] | None, COLUMNS] = None


class ParquetOutputPart(Part):
    """A folder of Parquet files."""

    destination: Literal["parquet"]
    path: Annotated[_Text, FOLDER]
    mode: Mode = "error_if_exists"
    columns: Annotated[list[_Text] | None, COLUMNS] = None


class RejectsPart(Part):
    """Where rejected rows go, and how many are borne."""

    path: Annotated[_Text | None, FOLDER] = None
    max_reject_ratio: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="The largest share of rejected rows with which the result is still published.",
            examples=[0.01],
        ),
        Remedy("use a number from 0 to 1"),
    ] = Rejects().max_reject_ratio


class ConfigPart(Part):
    """How a job runs; what is left out has its default."""

    batch_size: Annotated[
        int,
        Field(ge=1, le=1_000_000, description="Rows that the model is called with at once.", examples=[1000]),
        Remedy("use a whole number from 1 to 1000000"),
    ] = _DEFAULTS.batch_size
    parallelism: Annotated[
        int,
        Field(ge=1, le=256, description="Model calls at the same time.", examples=[4]),
        Remedy("use a whole number from 1 to 256"),
    ] = _DEFAULTS.parallelism
    max_memory_gb: Annotated[
        float,
        Field(gt=0, description="Memory of the job's process and its children, in GB.", examples=[16]),
        Remedy("use a number above 0"),
    ] = _DEFAULTS.max_memory_gb
    timeout_minutes: Annotated[
        float,
        Field(gt=0, description="How long the job may take, all its attempts together.", examples=[60]),
        Remedy("use a number above 0"),
    ] = _DEFAULTS.timeout_minutes
    retry_count: Annotated[
        int,
        Field(ge=0, le=100, description="How often what fails in passing is tried again.", examples=[3]),
        Remedy("use a whole number from 0 to 100"),
    ] = _DEFAULTS.retry_count
    runner: Annotated[Literal["direct"], Field(description="What runs the graph.", examples=["direct"])] = (
        _DEFAULTS.runner
    )

    def given(self) -> dict[str, Any]:
        """The fields that were written."""
        return {
            field.name: getattr(self, field.name) for field in fields(Config) if field.name in self.model_fields_set
        }


class SpecPart(Part):
    """A job's spec as a whole."""

    model: Annotated[ModelPart, MODEL]
    input: Annotated[SqlInputPart | ParquetInputPart, Field(discriminator="source"), INPUT]
    output: Annotated[TableOutputPart | ParquetOutputPart, Field(discriminator="destination"), OUTPUT]
    rejects: RejectsPart = RejectsPart()
    config: ConfigPart = ConfigPart()


def _features(value: Any) -> Features:
    """Columns, or those of each input, of which one may stand by itself."""
    if isinstance(value, dict):
        value = {name: [columns] if isinstance(columns, str) else columns for name, columns in value.items()}
    return tupled_names(value)


def input_of(read: Any) -> Input:
    """The input that pydantic read, once nothing is wrong with it."""
    return input_kind(read.source).from_request(dict(read)).with_paths(lambda each: local_path(each.path))


def output_of(read: Any) -> Output:
    """The output that pydantic read, once nothing is wrong with it."""
    return output_kind(read.destination).from_request(dict(read)).with_paths(lambda each: local_path(each.path))
