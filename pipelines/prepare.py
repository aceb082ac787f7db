"""From a job's spec to all that its run needs: load the model, open the input, fit them together, store the plan.

A later attempt of the job finds the plan and does none of it again.
"""

import base64
import hashlib
import importlib.util
import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.binding import Binding, bind
from pipelines.calibration import seconds_per_row
from pipelines.destinations import check_disjoint, make_rejects
from pipelines.spec import JobSpec
from predictors.base import ModelSpec
from predictors.bounds import Bounds
from predictors.crashes import FIRST_ROWS, CrashRecord, SpanName
from predictors.errors import ModelNotLoadable
from predictors.notices import Notice, merged
from predictors.pool.inline import threads_of
from predictors.registry import make_predictor
from transforms.batches import Split
from transforms.counts import Counts
from transforms.errors import InputChanged
from transforms.ledger import count, write_durably
from transforms.place import NOTICES_FILE, PLAN_FILE, PROGRESS_FOLDER, JobPlace
from transforms.publish import Publication
from transforms.rejects import RejectFolder
from transforms.sinks.base import Sink
from transforms.sources.base import NoRows, cut
from transforms.sources.input import OnCopied
from transforms.telemetry import Telemetry

# Processes that may end while they ask a model for its pace.
_MOST_ASKED = 2


@dataclass(frozen=True)
class Attempt:
    """Which attempt of a job this is.

    Args:
        number: the first is 1.
        memory_strikes: attempts before that ran out of memory.
    """

    number: int = 1
    memory_strikes: int = 0


@dataclass(frozen=True)
class Prepared:
    """All that `run` needs.

    Args:
        spec: what was asked for.
        total_rows: rows of the plan.
        output, rejects: where the result and the rejects will be, for people.
        already: rows that the ledger had when the attempt began.
        publication: the plan, the sink, the rejects, and the terms.
        bound: model and input; None when the result is published and only tidying is left.
        telemetry: where the counters go.
        in_flight_share: of the spans that are in flight at once; less after an attempt that ran out of memory.
        crashes: what is known of earlier attempts that died while the model was called.
        notices: what was found about the data while preparing, by this attempt or the one that planned.
        row_s: seconds that the model was seen to take for a row, all threads together; None where it was not asked.
    """

    spec: JobSpec
    total_rows: int
    output: str
    rejects: str
    already: Counts
    publication: Publication
    bound: Binding | None
    telemetry: Telemetry
    in_flight_share: float
    crashes: CrashRecord
    notices: tuple[Notice, ...] = ()
    row_s: float | None = None


def prepare(
    spec: JobSpec, place: JobPlace, attempt: Attempt, on_copied: OnCopied = lambda rows, total: None
) -> Prepared:
    """Load, open, check and plan; or take up what an earlier attempt planned.

    Args:
        place: the job's own folder gets `plan.json`, and a copy of an input that would not read the same each time.
        on_copied: called now and then while an input is copied.

    Raises:
        PipelineError, PredictorError: one line that says what is wrong.
    """
    plan_file = place.folder / PLAN_FILE
    try:
        return _prepare(spec, place, attempt, plan_file, on_copied)
    finally:
        if not plan_file.exists():
            # It failed, and another attempt would ask the query anew.
            drop_snapshot(place.folder)


def _prepare(spec: JobSpec, place: JobPlace, attempt: Attempt, plan_file: Path, on_copied: OnCopied) -> Prepared:
    folder = place.folder
    stored = json.loads(plan_file.read_bytes()) if plan_file.exists() else None
    sink = spec.output.sink(place)
    if stored is not None and sink.published() is not None:
        return _published(spec, place, attempt, stored, sink)
    crashes = CrashRecord(folder)
    found = crashes.take_up()
    predictor = make_predictor(spec.model, place.within)
    predictor.load()
    model_sha256 = _model_sha256(spec.model, place.within)
    if stored is None:
        check_disjoint(spec, folder)
        source = spec.input.open(place, spec.config.batch_size, on_copied)
        first_rows = SpanName(FIRST_ROWS, 0, 1) if predictor.output_schema is None else None
        if first_rows is not None and found.suspects_in(first_rows):
            line = "declares no output_schema, and its process died when it was asked with the first rows; declare one"
            raise ModelNotLoadable(f"model {spec.model.uri} {line}")
        with crashes.running().during(first_rows):
            bound = bind(spec, predictor, source, likely=_predictions_added_to(spec, folder))
    else:
        if stored["model_sha256"] != model_sha256:
            raise InputChanged(f"model {spec.model.uri} changed after the job was planned; run the job anew")
        source = spec.input.reopen(stored["input"], _schema(stored["input"]["schema"]), place)
        bound = bind(spec, predictor, source, _schema(stored["predictions"]))
    rejects = make_rejects(spec, place, source)
    if stored is None:
        noticed = [*source.notices, *sink.check(bound.output_schema), *rejects.check()]
    sink.prepare(bound.output_schema)
    rejects.prepare()
    row_s = None
    if stored is None:
        splits, row_s = _plan(spec, bound, folder)
        stored = {
            "model_sha256": model_sha256,
            "input": {
                "source": spec.input.source,
                **spec.input.to_reopen(source),
                "schema": _encoded(source.schema),
            },
            "predictions": _encoded(predictor.output_schema),
            "splits": [split.to_json() for split in splits],
            "notices": [notice.to_json() for notice in merged(noticed)],
        }
        write_durably(plan_file, json.dumps(stored).encode())
    publication = _publication(spec, place, stored, sink, rejects)
    already = count(sink.all_notes())
    return replace(_prepared(spec, place, attempt, publication, already, bound), row_s=row_s)


def _predictions_added_to(spec: JobSpec, folder: Path) -> pa.Schema | None:
    """The prediction columns of the job to whose result rows are to be added; None where it is not known any more."""
    if spec.output.appends_to is None:
        return None
    try:
        return _schema(json.loads((folder.parent / spec.output.appends_to / PLAN_FILE).read_bytes())["predictions"])
    except FileNotFoundError:
        return None


def _plan(spec: JobSpec, bound: Binding, folder: Path) -> tuple[tuple[Split, ...], float | None]:
    """The splits of the input, cut into spans by how many threads share it, and by the pace of the model.

    Also what a row took, of all threads together, where the model was asked.

    The file `asked` in the job's folder has a byte for each process that came to its end while it asked the model for
    its pace. After two the model is not asked, nor after one that died of the call: the run has to get along with it.
    """
    asked, crashes = folder / "asked", CrashRecord(folder)
    batch_size, threads = spec.config.batch_size, threads_of(bound.predictor, spec.config.parallelism)
    splits = cut(bound.source.plan(bound.columns, batch_size), batch_size, threads)
    longest = max(splits, key=_longest_span, default=None)
    if longest is None or _longest_span(longest) <= batch_size:
        return splits, None
    if asked.exists() and asked.stat().st_size >= _MOST_ASKED:
        return splits, None
    first_rows = SpanName(longest.id, 0, _longest_span(longest))
    if crashes.findings().suspects_in(first_rows):
        return splits, None
    with open(asked, "ab") as file:
        file.write(b".")
    try:
        with crashes.running().during(first_rows):
            row_s = seconds_per_row(bound, longest, batch_size, bound.nulls, threads)
    finally:
        asked.unlink(missing_ok=True)
    return cut(splits, batch_size, threads, row_s), None if row_s is None else row_s / threads


def _longest_span(split: Split) -> int:
    """Rows of the longest span of a split."""
    return split.span_rows if split.rows is None else min(split.span_rows, split.rows)


def _published(spec: JobSpec, place: JobPlace, attempt: Attempt, stored: dict[str, Any], sink: Sink) -> Prepared:
    """What is left to do where an earlier attempt was cut off behind publishing; neither model nor input is needed."""
    rejects = make_rejects(spec, place, NoRows(_schema(stored["input"]["schema"])))
    publication = _publication(spec, place, stored, sink, rejects)
    return _prepared(spec, place, attempt, publication, sink.published() or Counts(), None)


def _publication(
    spec: JobSpec, place: JobPlace, stored: dict[str, Any], sink: Sink, rejects: RejectFolder
) -> Publication:
    return Publication(
        place.job_id,
        sink,
        rejects,
        _splits(stored),
        spec.rejects.max_reject_ratio,
        details={"model": {"uri": spec.model.uri, "sha256": stored["model_sha256"]}},
        # A plan of a version that knew none has none.
        notices=tuple(map(Notice.from_json, stored.get("notices", ()))),
        notices_file=place.folder / NOTICES_FILE,
    )


def _prepared(
    spec: JobSpec,
    place: JobPlace,
    attempt: Attempt,
    publication: Publication,
    already: Counts,
    bound: Binding | None,
) -> Prepared:
    return Prepared(
        spec=spec,
        total_rows=sum(split.rows or 0 for split in publication.splits),
        output=publication.sink.describe(),
        rejects=publication.rejects.path,
        already=already,
        publication=publication,
        bound=bound,
        telemetry=Telemetry(str(place.folder / PROGRESS_FOLDER), attempt.number),
        in_flight_share=0.5**attempt.memory_strikes,
        crashes=CrashRecord(place.folder),
        notices=publication.notices,
    )


def drop_snapshot(folder: Path) -> None:
    """Remove a query's snapshot once nothing will read it again."""
    shutil.rmtree(folder / "snapshot", ignore_errors=True)


def _splits(stored: dict[str, Any]) -> tuple[Split, ...]:
    return tuple(Split.from_json(split) for split in stored["splits"])


def _model_sha256(model: ModelSpec, within: Bounds | None) -> str | None:
    """What the model was, so that a resume does not mix two. None where there is no file to look at."""
    path: str | None = model.uri
    if model.runs_code:
        module = importlib.util.find_spec(model.uri.partition(":")[0])
        path = module.origin if module else None
    if path is None or not os.path.isfile(path):
        return None
    if within is None or model.runs_code:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    try:
        with within.opened(path) as fd, open(fd, "rb", closefd=False) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelNotLoadable(f"model {path}: {error.strerror}") from error


def _encoded(schema: pa.Schema) -> str:
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def _schema(encoded: str) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(encoded)))
