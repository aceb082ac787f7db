"""What was found out about a job before it runs, as the API tells it."""

import math
from typing import Any

from launcher.report import minutes_of


def estimate_object(report: dict[str, Any]) -> dict[str, Any]:
    """The estimate.

    Args:
        report: as `launcher.estimate.forked.estimate` gives it.
    """
    seconds = report["seconds"]
    return {
        "rows": report["rows"],
        "estimated_duration_minutes": minutes_of(float(seconds["likely"])),
        "estimated_duration_seconds": float(seconds["likely"]),
        "seconds": {name: float(seconds[name]) for name in ("low", "likely", "high")},
        "memory_gb": round(report["memory_bytes"] / 2**30, 2),
        "assumptions": report["assumptions"],
        "sample": {
            "rows": report["sample_rows"],
            "predictions": _finite(report["predictions"]),
            "refused": report["refused"],
        },
        "output": report["output"],
        "notices": report["notices"],
    }


def _finite(value: Any) -> Any:
    """`value` with null where a number is none that JSON has."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list) else value
