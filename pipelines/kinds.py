"""The kinds of inputs and outputs, by the names that a spec gives them. Each is imported when it is first used."""

import importlib

from transforms.sinks.output import Output
from transforms.sources.input import Input

SOURCES = {
    "parquet": "transforms.sources.parquet_input:ParquetInput",
    "sql": "transforms.sources.sql_input:SqlInput",
}
DESTINATIONS = {
    "parquet": "transforms.sinks.parquet_output:ParquetOutput",
    "table": "transforms.sinks.table_output:TableOutput",
}


def input_kind(source: str) -> type[Input]:
    """The inputs of a kind.

    Raises:
        KeyError: there is no such kind.
    """
    found: type[Input] = _imported(SOURCES[source])
    return found


def output_kind(destination: str) -> type[Output]:
    """The outputs of a kind.

    Raises:
        KeyError: there is no such kind.
    """
    found: type[Output] = _imported(DESTINATIONS[destination])
    return found


def _imported(place: str) -> type:
    module, _, name = place.partition(":")
    found: type = getattr(importlib.import_module(module), name)
    return found
