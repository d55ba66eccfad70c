"""How many processors this process may use."""

import math
import os
from functools import cache
from pathlib import Path
from typing import Final

_CGROUP: Final = Path("/sys/fs/cgroup")


@cache
def processors(cgroup: Path = _CGROUP) -> int:
    """Those it may run on, or as many as its container has a quota of, if that is less; one at least."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroup)
    return max(1, min(allowed, math.ceil(quota))) if quota else allowed


def _quota(cgroup: Path) -> float | None:
    """What the control group may use, by version 2 or 1 of that; None if it is not limited."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text()
        period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):
        return None
