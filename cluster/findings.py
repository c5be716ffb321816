"""What the doctor finds: of the driver, of each node, and of the cluster. A report is plain data, and can be JSON."""

from pydantic import BaseModel, ConfigDict


class _Finding(BaseModel):
    model_config = ConfigDict(frozen=True)


class Storage(_Finding):
    """How the root answered one process: milliseconds per operation on 1 MiB, or the error that ended the check.

    ``shared`` is whether this process sees the file that the driver wrote.
    """

    milliseconds: dict[str, float] = {}
    shared: bool = False
    error: str | None = None


class Machine(_Finding):
    """The machine, or the container, that a node's process is in.

    Sizes are in GiB. ``token`` is whether Ray asks for a token; ``disk_full`` is the used share of the fullest of the
    disks that Ray and the cache write to, ``disk_free_gb`` what is free there; ``clock_off_s`` is how far the node's
    clock is at least from the driver's, as far as the time of the answer tells. ``gpu_driver`` is the version of
    NVIDIA's driver, empty where there is none.
    """

    token: bool = False
    disk_free_gb: float = 0
    disk_full: float = 0
    shared_memory_gb: float = 0
    clock_off_s: float = 0
    gpu_driver: str = ""


class Node(_Finding):
    """One node: what Ray says of it, and what the task on it found. ``memory_gb`` is what Ray plans with."""

    id: str
    ip: str
    alive: bool
    head: bool = False
    cpus: float = 0
    memory_gb: float = 0
    accelerators: dict[str, float] = {}
    software: dict[str, str | None] = {}
    object_store_gb: float = 0
    storage: Storage | None = None
    machine: Machine | None = None
    error: str | None = None

    @property
    def name(self) -> str:
        """The IP address and enough of the id to tell two nodes of one machine apart."""
        return f"{self.ip} ({self.id[:6]})"


class Problem(_Finding):
    """Something wrong, where (``driver``, a node, or the cluster), and what to do about it.

    ``warns`` is whether a run can go on in spite of it.
    """

    where: str
    what: str
    todo: str
    warns: bool = False


class Report(_Finding):
    """All findings. ``root`` is None when no storage was to be checked; it is shown without its query, which may hold
    keys. ``private`` is whether Ray is one that was started for the examination alone."""

    address: str
    private: bool = False
    root: str | None
    driver: Node
    nodes: tuple[Node, ...]
    problems: tuple[Problem, ...] = ()
    missing_workers: str = ""  # what was asked for, where not all of it came

    @property
    def is_well(self) -> bool:
        """Whether a run can go on in spite of all that was found."""
        return all(problem.warns for problem in self.problems)
