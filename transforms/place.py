"""Where a job is at home: its own folder, and the folders in which what its spec names has to lie."""

import os
from dataclasses import dataclass
from pathlib import Path

from predictors.bounds import Bounds, lies_in

# What lies in a job's own folder: what is to be read, what was noticed meanwhile, and how far each attempt is.
PLAN_FILE, NOTICES_FILE, PROGRESS_FOLDER = "plan.json", "notices.json", "progress"


@dataclass(frozen=True)
class JobPlace:
    """What a job's inputs and outputs are opened with.

    Args:
        job_id: the job's.
        folder: the job's own. What is kept between its attempts lies there.
        within: where the files that the job's spec names have to lie whenever one of them is opened, wherever their
            names lead by then; None: anywhere.
    """

    job_id: str
    folder: Path
    within: Bounds | None = None

    def bounds_of(self, *paths: str) -> Bounds | None:
        """What `paths` are held against: nothing where the service itself chose them, in some job's folder.

        No request names those; see `launcher.reach.confined_spec`.
        """
        jobs = os.path.abspath(self.folder.parent)
        return None if all(lies_in(os.path.abspath(path), jobs, below=True) for path in paths) else self.within
