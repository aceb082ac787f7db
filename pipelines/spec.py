"""What a job is: its spec as plain values, the same however it was asked for."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal

import pyarrow as pa

from predictors.base import ModelSpec
from predictors.specvalue import CONNECTION, NamedConnection, NamedPath, PathMark, SpecValue
from transforms.sinks.mode import Mode
from transforms.typenames import type_named


@dataclass(frozen=True)
class ParquetInput(SpecValue):
    """Parquet files: each path is a file, a glob, or a folder that is searched.

    `schema`: columns, and the types that they are read as, as Arrow prints them, whatever the files say.
    """

    path: Annotated[tuple[str, ...], PathMark("read", is_pattern=True)]
    schema: tuple[tuple[str, str], ...] = ()
    source: Literal["parquet"] = "parquet"

    def declared(self) -> dict[str, pa.DataType]:
        """`schema` as Arrow has it."""
        return {name: type_named(type) for name, type in self.schema}


@dataclass(frozen=True)
class SqlInput(SpecValue):
    """The rows of one query. `connection` may hold `${NAME}`, expanded only where it is opened."""

    connection: Annotated[str, CONNECTION] = field(repr=False)
    query: str
    source: Literal["sql"] = "sql"


@dataclass(frozen=True)
class ParquetOutput(SpecValue):
    """A folder of Parquet files. `columns`: input columns to pass through; None is all of them.

    `appends_to`: with mode append, the job whose result must be there; None does not ask.
    """

    path: Annotated[str, PathMark("written")]
    mode: Mode = "error_if_exists"
    columns: tuple[str, ...] | None = None
    appends_to: str | None = None
    destination: Literal["parquet"] = "parquet"


@dataclass(frozen=True)
class TableOutput(SpecValue):
    """A table of a database. `columns` and `appends_to` as in `ParquetOutput`."""

    connection: Annotated[str, CONNECTION] = field(repr=False)
    table_name: str
    mode: Mode = "error_if_exists"
    columns: tuple[str, ...] | None = None
    appends_to: str | None = None
    destination: Literal["table"] = "table"


@dataclass(frozen=True)
class Rejects(SpecValue):
    """Where rejected rows go (None: into the job's own folder) and how large a share of them is borne."""

    path: Annotated[str | None, PathMark("written")] = None
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

    def paths(self) -> Iterator[NamedPath]:
        """The paths that the spec names, those of the model, the input, the output and the rejects in this order."""
        for name, part in self._parts():
            yield from (replace(each, field=f"{name}.{each.field}") for each in part.paths())

    def with_paths(self, change: Callable[[NamedPath], str]) -> "JobSpec":
        """The spec with each of its `paths` changed."""

        def inside(name: str) -> Callable[[NamedPath], str]:
            return lambda each: change(replace(each, field=f"{name}.{each.field}"))

        changed: dict[str, Any] = {name: part.with_paths(inside(name)) for name, part in self._parts()}
        return replace(self, **changed)

    def connections(self) -> Iterator[NamedConnection]:
        """The connections that the spec names, where it names them; a name may come twice."""
        for name, part in self._parts():
            yield from (replace(each, field=f"{name}.{each.field}") for each in part.connections())

    def with_connections(self, change: Callable[[str], str]) -> "JobSpec":
        """The spec with the name of each of its `connections` changed."""
        changed: dict[str, Any] = {name: part.with_connections(change) for name, part in self._parts()}
        return replace(self, **changed)

    def connection_names(self) -> list[str]:
        """The names of `connections`, each once."""
        return list(dict.fromkeys(each.name for each in self.connections()))

    def with_uris(self, uris: Mapping[str, str]) -> "JobSpec":
        """The spec with each connection's URI in the place of its name, where `uris` has it."""
        return self.with_connections(lambda name: uris.get(name, name))

    def _parts(self) -> Iterator[tuple[str, SpecValue]]:
        return ((name, getattr(self, name)) for name in ("model", "input", "output", "rejects"))

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
