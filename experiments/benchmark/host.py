"""What the operating system knows about this machine and this process."""

import os
import platform
import resource
import sys
from pathlib import Path

from experiments.versions import version


def cpu() -> str:
    """Model of the processor and the number of cores that this process may use."""
    name = _field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()
    return f"{name}, {usable_cores()} cores"


def versions(*packages: str) -> dict[str, str]:
    """Of these packages, as they are installed, and of Python."""
    return {name: version(name) for name in packages} | {"python": platform.python_version()}


def usable_cores() -> int:
    """Cores that this process may run on."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_resident_bytes() -> int:
    """Largest memory that this process has held.

    On Linux from ``VmHWM``: ``ru_maxrss`` of a process begins with what its parent held when it was
    started.
    """
    peak = _field("/proc/self/status", "VmHWM")
    if peak is not None:
        return int(peak.split()[0]) * 1024
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def busy_seconds() -> float | None:
    """Seconds that all cores together have worked since the machine started, where it is told."""
    file = Path("/proc/stat")
    if not file.exists():
        return None
    user, nice, system, _idle, _iowait, irq, softirq, *_ = file.read_text().split()[1:9]
    ticks = sum(map(int, (user, nice, system, irq, softirq)))
    return ticks / os.sysconf("SC_CLK_TCK")


def available_bytes() -> int:
    """Memory that can be had without swapping; where that is not told, all of it."""
    available = _field("/proc/meminfo", "MemAvailable")
    if available is not None:
        return int(available.split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _field(file: str, name: str) -> str | None:
    """Value of the first line ``name : value`` of a file of /proc, if there is one."""
    path = Path(file)
    lines = path.read_text().splitlines() if path.exists() else []
    values = (line.partition(":")[2] for line in lines if line.partition(":")[0].strip() == name)
    return next((value.strip() for value in values), None)
