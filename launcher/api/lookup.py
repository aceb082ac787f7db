"""What a path names, if it is the caller's own. What is another tenant's is not there, in the very same words."""

import re

from launcher.admission import Caller
from launcher.errors import ConnectionUnknown, JobUnknown, ModelUnknown, ScheduleUnknown
from launcher.service import Service
from launcher.state.job import Job
from launcher.state.registry import Model, NamedConnection
from launcher.state.schedules import Schedule

# What our ids and names are made of. Others need not be looked for, and some a database would choke on.
_JOB_ID = re.compile(r"batch-[0-9a-f]{10}")
_SCHEDULE_ID = re.compile(r"sched-[0-9a-f]{10}")
_MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_CONNECTION = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
# As much of a wrong name as an answer repeats.
_SHOWN_CHARS = 80


def own_job(service: Service, caller: Caller, job_id: str) -> Job:
    """The caller's job of an id.

    Raises:
        JobUnknown: there is none.
    """
    if not _JOB_ID.fullmatch(job_id):
        raise JobUnknown(job_id[:_SHOWN_CHARS])
    job = service.store.get(job_id)
    if job.tenant != caller.tenant:
        raise JobUnknown(job_id)
    return job


def own_model(service: Service, caller: Caller, model_id: str, version: int | None = None) -> Model:
    """The caller's model of an id; None is its newest version.

    Raises:
        ModelUnknown: there is none.
    """
    return service.models.get(caller.tenant, checked_model_id(model_id), version)


def checked_model_id(model_id: str) -> str:
    """`model_id`, if there can be one of this id.

    Raises:
        ModelUnknown: there cannot.
    """
    if not _MODEL_ID.fullmatch(model_id):
        raise ModelUnknown(model_id[:_SHOWN_CHARS])
    return model_id


def own_connection(service: Service, caller: Caller, name: str) -> NamedConnection:
    """The caller's connection of a name.

    Raises:
        ConnectionUnknown: there is none.
    """
    return service.connections.get(caller.tenant, checked_connection_name(name))


def checked_connection_name(name: str) -> str:
    """`name`, if a connection can be called so.

    Raises:
        ConnectionUnknown: none can.
    """
    if not _CONNECTION.fullmatch(name):
        raise ConnectionUnknown(name[:_SHOWN_CHARS])
    return name


def own_schedule(service: Service, caller: Caller, schedule_id: str) -> Schedule:
    """The caller's schedule of an id.

    Raises:
        ScheduleUnknown: there is none.
    """
    if not _SCHEDULE_ID.fullmatch(schedule_id):
        raise ScheduleUnknown(schedule_id[:_SHOWN_CHARS])
    return service.schedules.get(schedule_id, caller.tenant)
