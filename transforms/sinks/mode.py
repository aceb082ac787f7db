"""What a job asks of a destination that is there already; apart, so that a spec can be read without loading Arrow."""

from typing import Literal

Mode = Literal["overwrite", "error_if_exists"]
