"""What a job is: its spec as plain values, the same however it was asked for."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal

from pipelines.kinds import input_kind, output_kind
from predictors.base import ModelSpec
from predictors.specvalue import NamedConnection, NamedPath, PathMark, SpecValue
from transforms.sinks.output import Output
from transforms.sinks.parquet_output import ParquetOutput
from transforms.sinks.table_output import TableOutput
from transforms.sources.input import Input
from transforms.sources.parquet_input import ParquetInput
from transforms.sources.sql_input import SqlInput

__all__ = [
    "Config",
    "JobSpec",
    "ParquetInput",
    "ParquetOutput",
    "Rejects",
    "SqlInput",
    "TableOutput",
    "input_from_json",
]


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
    input: Input
    output: Output
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
        return cls(
            model=ModelSpec.from_json(values["model"]),
            input=input_from_json(values["input"]),
            output=output_kind(values["output"]["destination"]).from_json(values["output"]),
            rejects=Rejects(**values["rejects"]),
            config=Config(**values["config"]),
        )


def input_from_json(values: Mapping[str, Any]) -> Input:
    """The input that `to_json` wrote."""
    return input_kind(values["source"]).from_json(values)
