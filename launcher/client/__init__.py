"""A Python client of the service.

    from launcher.client import Client

    with Client("http://127.0.0.1:8080") as client:
        job = client.submit({"model_id": "churn", "input": {...}, "output": {...}})
        print(job.wait().counts)

errors.py      what can go wrong
wire.py        requests over HTTP, sent again where that is safe
answers.py     what the service tells, as values
events.py      server-sent events become values
following.py   following a job to its end
showing.py     a job's progress on the screen
saving.py      rows into a file
job.py         a job
registered.py  models, connections, schedules
client.py      all of it
"""

from launcher.client.answers import (
    Column,
    Connection,
    Estimate,
    Event,
    JobStatus,
    Model,
    Output,
    Progress,
    RowCounts,
    Sample,
    Schedule,
    Scheduled,
    Seconds,
    Submission,
    Timing,
)
from launcher.client.client import Client
from launcher.client.errors import (
    AnswerUnreadable,
    Conflict,
    FieldError,
    Forbidden,
    Gone,
    Misconfigured,
    NotFound,
    PenstockError,
    Problem,
    Refusal,
    RequestRefused,
    ServerFailed,
    ServerUnavailable,
    StillRunning,
    Unauthorized,
    Unwritable,
)
from launcher.client.job import Job
from launcher.client.wire import DEFAULT_URL

__all__ = [
    "DEFAULT_URL",
    "AnswerUnreadable",
    "Client",
    "Column",
    "Conflict",
    "Connection",
    "Estimate",
    "Event",
    "FieldError",
    "Forbidden",
    "Gone",
    "Job",
    "JobStatus",
    "Misconfigured",
    "Model",
    "NotFound",
    "Output",
    "PenstockError",
    "Problem",
    "Progress",
    "Refusal",
    "RequestRefused",
    "RowCounts",
    "Sample",
    "Schedule",
    "Scheduled",
    "Seconds",
    "ServerFailed",
    "ServerUnavailable",
    "StillRunning",
    "Submission",
    "Timing",
    "Unauthorized",
    "Unwritable",
]
