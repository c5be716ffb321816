"""What a node's process finds of the machine, or the container, that it is in."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from cluster.findings import Machine
from cluster.nodecache import cache_directory

DRIVER = Path("/proc/driver/nvidia/version")
SHARED_MEMORY = "/dev/shm"


def examine_machine() -> Machine:
    """The machine of this process. In a task of Ray it knows Ray's own directory too."""
    used = [shutil.disk_usage(_find_parent(path)) for path in (_find_ray_directory(), cache_directory())]
    fullest = max(used, key=lambda disk: disk.used / disk.total)
    shared = shutil.disk_usage(SHARED_MEMORY).total if os.path.isdir(SHARED_MEMORY) else 0
    return Machine(
        token=_asks_for_token(),
        disk_free_gb=round(fullest.free / 2**30, 1),
        disk_full=round(fullest.used / fullest.total, 3),
        shared_memory_gb=round(shared / 2**30, 1),
        gpu_driver=find_gpu_driver(),
    )


def measure_clock(there: float, sent: float, received: float) -> float:
    """The least difference, in seconds, between two clocks: one showed ``there`` at a moment between ``sent`` and
    ``received`` of the other."""
    return round(max(sent - there, there - received, 0.0), 3)


def find_gpu_driver(file: Path = DRIVER) -> str:
    """The version of NVIDIA's driver, from the kernel or from its own tool; empty where there is none."""
    try:
        found = re.search(r"Kernel Module\b.*?\s(\d+\.[\d.]+)", file.read_text("utf-8"))
    except OSError:
        found = None
    if found:
        return found.group(1)
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip().partition("\n")[0]


def _asks_for_token() -> bool:
    """Whether Ray's processes here ask callers for a token: workers have the setting of the node that started them."""
    from ray._private.authentication.authentication_utils import is_token_auth_enabled  # no public call tells it

    return bool(is_token_auth_enabled())


def _find_ray_directory() -> Path:
    import ray

    return Path(ray.get_runtime_context().get_temp_dir() if ray.is_initialized() else tempfile.gettempdir())


def _find_parent(path: Path) -> Path:
    """The path, or the nearest directory above it that is there."""
    while not path.exists():
        path = path.parent
    return path
