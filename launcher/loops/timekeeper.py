"""The timekeeper: makes the jobs of schedules that are due."""

import contextlib
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from launcher.admission import Admission, Caller
from launcher.cron import Cron, decide_missed
from launcher.errors import JobExists, JobUnknown, LauncherError, NotNow, StoreUnavailable
from launcher.request.service import Defaults, job_request
from launcher.state.job import Job
from launcher.state.schedules import Schedule, Schedules, run_id
from launcher.state.sql import SqlJobStore
from launcher.templates import render

# A run that is made this late is on time: a launcher looks twice a second, and restarts within a minute.
GRACE_S = 60.0
_AT_ONCE = 100

_log = logging.getLogger("launcher.loops.timekeeper")


class Timekeeper:
    """Fires schedules. Of several launchers that look at once, one makes each job."""

    def __init__(
        self,
        store: SqlJobStore,
        schedules: Schedules,
        admission: Admission,
        defaults: Defaults,
    ) -> None:
        self._store = store
        self._schedules = schedules
        self._admission = admission
        self._defaults = defaults
        self._now = store.clock
        self._looked_at: datetime | None = None
        self._looking_since = datetime.max.replace(tzinfo=UTC)

    def tick(self) -> int:
        """Fire what is due. Returns how many jobs were made."""
        now = self._now()
        if self._looked_at is None or now - self._looked_at > timedelta(seconds=GRACE_S):
            # Nobody looked here; what was due meanwhile was missed, unless another launcher ran.
            self._looking_since = now
        made = 0
        for schedule in self._schedules.due(now, _AT_ONCE):
            try:
                made += self._fire(schedule)
            except StoreUnavailable:
                raise
            except LauncherError as error:
                _log.warning("schedule %s: %s", schedule.id, error, extra={"tenant": schedule.tenant})
        self._looked_at = self._now()
        return made

    def make(self, schedule: Schedule, scheduled_at: datetime, job_id: str) -> Job:
        """The job of one run, not recorded yet.

        Raises:
            LauncherError: the body, its templates filled in, makes no job; the line says why.
        """
        body: dict[str, Any] = render(dict(schedule.job), scheduled_at, schedule.timezone, job_id)
        request = job_request(body, self._defaults)
        return self._admission.make(
            Caller(schedule.tenant, schedule.role),
            request,
            job_id=job_id,
            schedule_id=schedule.id,
            scheduled_at=scheduled_at,
        )

    def run_now(self, schedule: Schedule, job_id: str) -> Job:
        """Make a job of a schedule at once, beside its times; asked again under the same id, it is the same job.

        Raises:
            NotNow: another job has this id.
            LauncherError: as `make`.
        """
        with contextlib.suppress(JobUnknown):
            # Whatever it names may be gone by now.
            return self._own(schedule, job_id)
        job = self.make(schedule, self._now(), job_id)
        with contextlib.suppress(JobExists):
            self._schedules.run(job, f"schedule {schedule.id}, run on request", schedule.webhook_secret)
        return self._own(schedule, job_id)

    def _own(self, schedule: Schedule, job_id: str) -> Job:
        job = self._store.get(job_id)
        if job.schedule_id != schedule.id:
            # Ids are short, and chance may have made the same one for another.
            raise NotNow("the id of this job is taken; send the request again, under another key")
        return job

    def _fire(self, schedule: Schedule) -> int:
        assert schedule.next_at is not None
        now = self._now()
        cron = Cron(schedule.cron, schedule.timezone)
        due = cron.missed(schedule.next_at - timedelta(microseconds=1), now)
        # Who was looking all the while has only been slow, as when many are due in the same minute.
        was_missed = schedule.next_at < self._looking_since
        at = decide_missed(schedule.missed if was_missed else "run_once", due, now, GRACE_S)  # type: ignore[arg-type]
        following = cron.next_after(now)
        job: Job | None = None
        skipped = None
        if at is None:
            skipped = f"missed {due[-1].isoformat()}, and missed runs are skipped" if due else None
        elif schedule.overlap == "skip" and self._store.count(schedule.id):
            skipped = f"the run before {at.isoformat()} is not over"
        else:
            try:
                job = self.make(schedule, at, run_id(schedule.id, at))
            except StoreUnavailable:
                # The schedule stays due.
                raise
            except LauncherError as error:
                skipped = "; ".join(str(error).splitlines())
            except Exception as error:
                # The schedules behind it, of other tenants perhaps, must not wait for it for ever.
                _log.exception("schedule %s broke", schedule.id, extra={"tenant": schedule.tenant})
                skipped = f"no job could be made of it: {type(error).__name__}"
        fired = self._schedules.fire(
            schedule.id,
            schedule.next_at,
            following,
            job,
            f"schedule {schedule.id}, due {at.isoformat() if at else 'before'}",
            schedule.webhook_secret,
            skipped,
            last_at=max(due, default=schedule.next_at),
            cancel_earlier=schedule.overlap == "cancel_running",
        )
        if not fired:
            return 0
        if skipped is not None:
            _log.warning("schedule %s: %s", schedule.id, skipped, extra={"tenant": schedule.tenant})
        return int(job is not None)
