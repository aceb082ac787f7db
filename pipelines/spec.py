"""What a job is: its spec as plain values, the same however it was asked for."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pyarrow as pa

from predictors.base import ModelSpec
from transforms.sinks.mode import Mode
from transforms.typenames import type_named


@dataclass(frozen=True)
class ParquetInput:
    """Parquet files: each path is a file, a glob, or a folder that is searched.

    `schema`: columns, and the types that they are read as, as Arrow prints them, whatever the files say.
    """

    path: tuple[str, ...]
    schema: tuple[tuple[str, str], ...] = ()
    source: Literal["parquet"] = "parquet"

    def declared(self) -> dict[str, pa.DataType]:
        """`schema` as Arrow has it."""
        return {name: type_named(type) for name, type in self.schema}


@dataclass(frozen=True)
class SqlInput:
    """The rows of one query. `connection` may hold `${NAME}`, expanded only where it is opened."""

    connection: str = field(repr=False)
    query: str
    source: Literal["sql"] = "sql"


@dataclass(frozen=True)
class ParquetOutput:
    """A folder of Parquet files. `columns`: input columns to pass through; None is all of them.

    `appends_to`: with mode append, the job whose result must be there; None does not ask.
    """

    path: str
    mode: Mode = "error_if_exists"
    columns: tuple[str, ...] | None = None
    appends_to: str | None = None
    destination: Literal["parquet"] = "parquet"


@dataclass(frozen=True)
class TableOutput:
    """A table of a database. `columns` and `appends_to` as in `ParquetOutput`."""

    connection: str = field(repr=False)
    table_name: str
    mode: Mode = "error_if_exists"
    columns: tuple[str, ...] | None = None
    appends_to: str | None = None
    destination: Literal["table"] = "table"


@dataclass(frozen=True)
class Rejects:
    """Where rejected rows go (None: into the job's own folder) and how large a share of them is borne."""

    path: str | None = None
    max_reject_ratio: float = 0.0


@dataclass(frozen=True)
class Config:
    """How a job runs; see the README for what each bounds."""

    batch_size: int = 1000
    parallelism: int = 4
    max_memory_gb: float = 16
    timeout_minutes: float = 60
    retry_count: int = 3
    runner: Literal["direct"] = "direct"


@dataclass(frozen=True)
class JobSpec:
    """A job as it was asked for, defaults filled in. Relative paths are relative to the job's working folder."""

    model: ModelSpec
    input: ParquetInput | SqlInput
    output: ParquetOutput | TableOutput
    rejects: Rejects = Rejects()
    config: Config = Config()

    def to_json(self) -> dict[str, Any]:
        """The spec as JSON values; `${NAME}` stays unexpanded, a literal password stays in it."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "JobSpec":
        """The spec that `to_json` wrote."""

        def tupled(name: str, part: dict[str, Any]) -> dict[str, Any]:
            return {**part, name: None if part[name] is None else tuple(part[name])}

        output = tupled("columns", values["output"])
        return cls(
            model=ModelSpec.from_json(values["model"]),
            input=input_from_json(values["input"]),
            output=TableOutput(**output) if output["destination"] == "table" else ParquetOutput(**output),
            rejects=Rejects(**values["rejects"]),
            config=Config(**values["config"]),
        )


def input_from_json(values: dict[str, Any]) -> ParquetInput | SqlInput:
    """The input that `to_json` wrote."""
    if values["source"] == "sql":
        return SqlInput(**values)
    schema = tuple((name, type) for name, type in values.get("schema", ()))
    return ParquetInput(**{**values, "path": tuple(values["path"]), "schema": schema})
