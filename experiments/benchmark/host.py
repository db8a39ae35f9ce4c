"""Facts about this machine and this process, from the operating system."""

import os
import platform
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path


def cpu_name() -> str:
    """Returns the model of the processor and the number of cores that this process may use."""
    name = _proc_field("cpuinfo", "model name") or platform.processor() or platform.machine()
    return f"{name}, {num_cores()} cores"


def gpu_name() -> str:
    """Returns the model of the first NVIDIA GPU and the version of its driver.

    Raises:
      ValueError: if this machine has none.
    """
    if shutil.which("nvidia-smi") is None:
        raise ValueError("the study needs a GPU, and nvidia-smi finds none: choose another study")
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    found = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    name, driver = found.splitlines()[0].split(", ")
    return f"{name}, driver {driver}"


def num_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def memory_bytes() -> int:
    """Returns the size of the machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def peak_resident_bytes() -> int:
    """Returns the largest memory that this process has held."""
    # On Linux, ru_maxrss starts at the size of the parent process; VmHWM does not.
    if peak := _proc_field("self/status", "VmHWM"):
        return int(peak.split()[0]) * 1024
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def _proc_field(file: str, name: str) -> str | None:
    """Value of the first line ``name : value`` of a file of /proc, None where there is none."""
    path = Path("/proc", file)
    text = path.read_text() if path.exists() else ""
    found = re.search(rf"^{name}\s*:\s*(.*)$", text, re.MULTILINE)
    return None if found is None else found[1]
