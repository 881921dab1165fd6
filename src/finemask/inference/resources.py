"""How much memory this process can still take."""

from __future__ import annotations

import os
from pathlib import Path


def available_bytes() -> int:
    """Memory that this process can still take, within its container's limit."""
    limits = [_machine_bytes(), _container_bytes(Path("/sys/fs/cgroup"))]
    return min(limit for limit in limits if limit is not None)


def _machine_bytes() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvail"))
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return 4 * 2**30


def _container_bytes(root: Path) -> int | None:
    """Room below the limit of a control group, version 2 or 1; ``None`` without a limit."""
    for limit, usage in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            most = int((root / limit).read_text())
            used = int((root / usage).read_text())
            stat = (root / limit).with_name("memory.stat").read_text().split()
        except (OSError, ValueError):  # "max" is no number: no limit
            continue
        cached = dict(zip(stat[::2], stat[1::2], strict=False)).get("inactive_file", "0")
        return max(0, most - used + int(cached))
    return None
