"""Where a job is about to run, its connections are what their names stand for."""

from collections.abc import Mapping
from dataclasses import replace

from pipelines.spec import JobSpec, SqlInput, TableOutput


def with_uris(spec: JobSpec, uris: Mapping[str, str]) -> JobSpec:
    """`spec` with each connection's URI in the place of its name."""
    given, wanted = spec.input, spec.output
    if isinstance(given, SqlInput):
        spec = replace(spec, input=replace(given, connection=uris.get(given.connection, given.connection)))
    if isinstance(wanted, TableOutput):
        spec = replace(spec, output=replace(wanted, connection=uris.get(wanted.connection, wanted.connection)))
    return spec
