"""Publish: the staged result becomes visible, once, if the ledger covers the plan and the rejects are few enough.

A step of whoever drives the graph, once that has come to its end: no worker holds the plan, nor what opens the gate.
"""

import datetime
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from predictors.notices import Notice, merged
from transforms.batches import Split
from transforms.counts import Counts, bearable_ratio
from transforms.errors import TooManyRejects
from transforms.ledger import check_covered, notices_of, write_durably
from transforms.rejects import RejectFolder
from transforms.sinks.base import Manifest, Sink


class Gate(Protocol):
    """Asked once everything is staged: from here on the job can no longer be cancelled."""

    def open(self) -> None:
        """Let the result be published.

        Raises:
            Cancelled: the job was told to stop first.
        """


@dataclass(frozen=True)
class AlwaysOpen:
    """A gate for runs that nobody can cancel."""

    def open(self) -> None:
        """Let the result be published."""


@dataclass(frozen=True)
class Publication:
    """What is to be published, and on what terms.

    Args:
        job_id: the job.
        sink, rejects: where the rows are staged.
        splits: the plan.
        max_reject_ratio: rejected rows borne, as a share of rejected and scored ones.
        gate: asked before anything becomes visible.
        details: for the manifest.
        notices: what was found while preparing.
        notices_file: gets these, and what the notes have, before anything becomes visible; None: nobody asks.
    """

    job_id: str
    sink: Sink
    rejects: RejectFolder
    splits: tuple[Split, ...]
    max_reject_ratio: float
    gate: Gate = AlwaysOpen()
    details: dict[str, Any] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()
    notices_file: Path | None = None


def publish(job: Publication) -> Counts:
    """Publish the result and the rejects, then remove what staging left. A second call does nothing.

    Raises:
        LedgerError: the notes do not cover the plan exactly once; nothing is published.
        TooManyRejects: only the rejects are published; the staged rows are kept for a resume.
        Cancelled: the gate stayed shut; nothing is published.
    """
    counts = job.sink.published()
    if counts is None:
        manifest = _manifest(job)
        counts = manifest.counts
        if counts.reject_ratio > job.max_reject_ratio:
            job.rejects.publish(manifest)
            raise TooManyRejects(_too_many(counts, job.max_reject_ratio))
        # Refused before the result is shown, should somebody have put files there.
        job.rejects.check()
        job.gate.open()
        job.sink.publish(manifest)
        job.rejects.publish(manifest)
    elif not job.rejects.is_published():
        # Cut off between the result and the rejects; nothing was cleaned yet, so the notes are all there.
        job.rejects.publish(_manifest(job))
    job.rejects.clean()
    job.sink.clean()
    return counts


def _manifest(job: Publication) -> Manifest:
    notes = job.sink.all_notes()
    counts = check_covered(job.splits, notes)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    noticed = [notice.to_json() for notice in merged((*job.notices, *notices_of(notes)))]
    if job.notices_file is not None:
        write_durably(job.notices_file, json.dumps(noticed).encode())
    return Manifest(job.job_id, counts, job.splits, notes, now, {**job.details, "notices": noticed})


def _too_many(counts: Counts, bound: float) -> str:
    return (
        f"{counts.rejected:,} of {counts.total:,} rows were rejected ({counts.reject_ratio:.4g}), and max_reject_ratio "
        f"is {bound:g}; mend the input, or resume the job with --max-reject-ratio {bearable_ratio(counts):g}"
    )
