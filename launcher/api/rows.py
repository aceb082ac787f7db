"""What a job has left to read: its log, its rejected rows, its result."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import pyarrow as pa
from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response

from launcher.admission import Caller
from launcher.api import documented, models
from launcher.api.answers import ARROW, JSON, TEXT, answer, wanted
from launcher.api.auth import Viewer
from launcher.api.lookup import own_job
from launcher.api.pages import Cursor, RowLimit, offset_cursor, read_offset_cursor
from launcher.api.threads import Threads
from launcher.api.view import JOBS_PATH
from launcher.errors import ConnectionUnknown, NotNow, Problem, RequestError, ResultGone
from launcher.joblog import is_written
from launcher.loglines import read_lines
from launcher.rows.folderpages import FoldersAside
from launcher.rows.rejects import rejects_path
from launcher.rows.results import FolderResult, ResultPlace, TableResult, as_arrow_stream, result_page
from launcher.rows.tablepages import TablesAside
from launcher.rows.values import as_json_rows
from launcher.service import Service
from launcher.state.job import Job
from transforms.connection import Connection

router = APIRouter(prefix=JOBS_PATH, tags=["rows"])

_MAX_LOG_BYTES = 1024 * 1024
# A process that a job has left may hold its log open for longer; it is not waited for.
_LAST_WORDS = timedelta(seconds=5)
_OF_JSON_OR_ARROW = (JSON, ARROW)
_OF_JSON_OR_TEXT = (JSON, TEXT)
_Accept = Annotated[str | None, Header(include_in_schema=False)]
_Rows = documented.refusals("not-found", "not-acceptable", "conflict", "gone", "invalid-request", "unavailable")


@router.get(
    "/{job_id}/logs",
    summary="A job's log",
    response_model=models.LogPage,
    responses={
        200: documented.text_too("Whole lines, from `offset` on."),
        **documented.refusals("not-found", "not-acceptable", "invalid-request"),
    },
)
def logs(
    request: Request,
    caller: Viewer,
    job_id: str,
    offset: Annotated[int | None, Query(ge=0, le=2**53, description="Where to begin, in bytes.", examples=[0])] = None,
    limit_bytes: Annotated[int, Query(ge=1, le=_MAX_LOG_BYTES, description="About how much at most.")] = 65_536,
    tail: Annotated[int | None, Query(ge=1, le=10_000, description="The last lines in its place.")] = None,
    accept: _Accept = None,
) -> Response:
    """What the job's process said, all attempts, one JSON object a line; as text, if `Accept` asks for text/plain."""
    media_type = wanted(accept, _OF_JSON_OR_TEXT)
    if offset is not None and tail is not None:
        raise RequestError([Problem("tail", "does not go with offset; leave one of them out")])
    service: Service = request.app.state.service
    # Looked at before its log, so that nothing is missed of a job that ends just now.
    job = own_job(service, caller, job_id)
    log = service.home.job(job.id).log
    # What it has said last may still be on its way.
    is_over = job.is_over and not (_just_ended(job, service) and is_written(log))
    found = read_lines(log, offset or 0, limit_bytes, tail, is_over)
    if media_type == TEXT:
        text = "".join(f"{line}\n" for line in found.lines)
        headers = {"X-Next-Offset": str(found.next_offset), "Vary": "Accept"}
        return Response(text.encode(errors="replace"), headers=headers, media_type=TEXT)
    values = {"lines": found.lines, "next_offset": found.next_offset, "complete": is_over and found.at_end}
    return answer(values, headers={"Vary": "Accept"})


@router.get(
    "/{job_id}/rejects",
    summary="The rows that a job rejected",
    response_model=models.RowPage,
    responses={200: documented.arrow_too("Position and reason, then the columns of the input."), **_Rows},
)
def rejects(
    request: Request, caller: Viewer, job_id: str, limit: RowLimit = 50, cursor: Cursor = None, accept: _Accept = None
) -> Response:
    """They are published when the job ends. None is an empty page."""
    media_type = wanted(accept, _OF_JSON_OR_ARROW)
    offset = read_offset_cursor("r", cursor)
    service: Service = request.app.state.service
    job = own_job(service, caller, job_id)
    if not job.is_over:
        raise NotNow(f"{job.id} is {job.status}, and its rejects are published when it ends; wait for that")
    if job.counts is not None and not job.counts.rejected:
        return _rows(pa.table({}), None, media_type)
    if job.expired_at is not None and job.spec.rejects.path is None:
        raise ResultGone(f"the rejects of {job.id} have expired; submit the job anew")
    # Says why there are none.
    path = rejects_path(job)
    within = service.reach.confinement(job.tenant).bounds_of(path, service.home.jobs)
    page = _folders(service).rejects(FolderResult(path, job.id, within), offset, limit)
    following = None if page.next_offset is None else offset_cursor("r", page.next_offset)
    return _rows(page.rows, following, media_type)


@router.get(
    "/{job_id}/results",
    summary="The rows that a job published",
    response_model=models.RowPage,
    responses={200: documented.arrow_too("Rows in the order in which they lie there."), **_Rows},
)
async def results(
    request: Request, caller: Viewer, job_id: str, limit: RowLimit = 50, cursor: Cursor = None, accept: _Accept = None
) -> Response:
    """What is read is where it was published; if others have written there since, they are told."""
    media_type = wanted(accept, _OF_JSON_OR_ARROW)
    offset = read_offset_cursor("s", cursor)
    service: Service = request.app.state.service
    threads: Threads = request.app.state.threads
    return await threads.read_page(caller.tenant, _results, service, caller, job_id, offset, limit, media_type)


def _results(service: Service, caller: Caller, job_id: str, offset: int, limit: int, media_type: str) -> Response:
    job = own_job(service, caller, job_id)
    if job.status != "completed":
        if job.is_over:
            remedy = f"`penstock retry {job.id}` goes on with it"
            if job.outcome == "request_wrong":
                remedy = "correct the request, as its error says, and submit it again"
            raise NotNow(f"{job.id} is {job.status}, and has no result; {remedy}")
        raise NotNow(f"{job.id} is {job.status}, and has a result once it is completed; wait for that")
    if job.keeps_result and job.expired_at is not None:
        raise ResultGone(f"the result of {job.id} has expired; submit the job anew")
    place = _place(service, job)
    if isinstance(place, FolderResult):
        page = _folders(service).results(place, offset, limit)
    else:
        aside = TablesAside(service.forks, str(service.home.path), service.settings.job_environment)
        page = result_page(place, offset, limit, aside.read)
    following = None if page.next_offset is None else offset_cursor("s", page.next_offset)
    return _rows(page.rows, following, media_type)


def _folders(service: Service) -> FoldersAside:
    return FoldersAside(service.looks, str(service.home.path), service.settings.job_environment)


def _place(service: Service, job: Job) -> ResultPlace:
    """Where the result of a completed job is, as far as the tenant may (still) reach it."""
    table = job.spec.output.table()
    if table is not None:
        connection, table_name = table
        try:
            uri = service.reach.uri(job.tenant, connection)
        except ConnectionUnknown as error:
            line = f"the result of {job.id} is in a database whose connection {connection!r} was deleted"
            raise ResultGone(f"{line}; register it again") from error
        return TableResult(Connection(uri, pinned=True), table_name, job.id)
    path = str(Path(job.working_dir, job.spec.output.target))
    return FolderResult(path, job.id, service.reach.confinement(job.tenant).bounds_of(path, service.home.jobs))


def _rows(table: pa.Table, following: str | None, media_type: str) -> Response:
    if media_type == ARROW:
        headers = {"Vary": "Accept"} | ({} if following is None else {"X-Next-Cursor": following})
        return Response(as_arrow_stream(table), headers=headers, media_type=ARROW)
    return answer({"rows": as_json_rows(table), "next_cursor": following}, headers={"Vary": "Accept"})


def _just_ended(job: Job, service: Service) -> bool:
    ended = job.finished_at
    return ended is not None and service.store.clock() - ended < _LAST_WORDS
