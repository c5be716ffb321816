"""The doctor: does every node of the cluster answer, run the same software, and reach the storage?

``examine`` sends one task to each node, which takes no CPU (so it reaches a busy node, and a head that takes no work).
The task reports the versions installed, writes a file of 1 MiB below the root, reads it back, lists and deletes it, and
looks for a file that the driver wrote: a root that exists on every node, but is not the same disk, is otherwise found
late. ``diagnose`` turns the findings into problems, each with its remedy. Cost: a few seconds.
"""

import os
import platform
import time
import uuid
from collections import defaultdict
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from cluster import session
from cluster.errors import BabelrayError, StorageError
from cluster.software import find_versions
from cluster.storage import Place

SAMPLE_BYTES = 1 << 20
EXAMINED = ("babelray", "ray", "torch", "transformers", "sentence-transformers", "vllm", "faiss", "pyarrow")
OPTIONAL = {"vllm"}  # installed only where it is used
ACCELERATORS = ("GPU", "TPU", "HPU", "NPU", "neuron_cores")


class _Finding(BaseModel):
    model_config = ConfigDict(frozen=True)


class Storage(_Finding):
    """How the root answered one process: milliseconds per operation on 1 MiB, or the error that ended the check.

    ``shared`` is whether this process sees the file that the driver wrote.
    """

    milliseconds: dict[str, float] = {}
    shared: bool = False
    error: str | None = None


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
    storage: Storage | None = None
    error: str | None = None

    @property
    def name(self) -> str:
        """The IP address and enough of the id to tell two nodes of one machine apart."""
        return f"{self.ip} ({self.id[:6]})"


class Problem(_Finding):
    """Something wrong, where (``driver``, a node, or the cluster), and what to do about it."""

    where: str
    what: str
    todo: str


class Report(_Finding):
    """All findings. ``root`` is None when no storage was to be checked; it is shown without its query, which may hold
    keys. ``private`` is whether Ray is one that was started for the examination alone."""

    address: str
    private: bool = False
    root: str | None
    driver: Node
    nodes: tuple[Node, ...]
    problems: tuple[Problem, ...] = ()


def examine(root: str | None, timeout_s: float = 60) -> Report:
    """Examine the connected cluster, and the storage below ``root`` from the driver and every living node."""
    import ray

    run = uuid.uuid4().hex
    storage = check_storage(root, run, "driver", keep=True) if root else None
    driver = Node(id="driver", ip=ray.util.get_node_ip_address(), alive=True, software=software(), storage=storage)
    try:
        nodes = _probe_nodes([_node(row) for row in ray.nodes()], root, run, timeout_s)
    finally:
        if storage and not storage.error:
            (Place.of(root or "") / f"doctor-{run}").delete()
    report = Report(
        address=ray.get_runtime_context().gcs_address,
        private=not session.is_given(),
        root=Place.of(root).redacted if root else None,
        driver=driver,
        nodes=tuple(nodes),
    )
    return report.model_copy(update={"problems": tuple(diagnose(report))})


def _node(row: dict[str, Any]) -> Node:
    """A node as Ray's own table describes it."""
    has = row["Resources"]
    kinds = [key.split(":", 1)[1] for key in has if key.startswith("accelerator_type:")]
    counts = {name: has[name] for name in ACCELERATORS if has.get(name)}
    if "GPU" in counts and kinds:
        counts[kinds[0]] = counts.pop("GPU")
    return Node(
        id=row["NodeID"],
        ip=row["NodeManagerAddress"],
        alive=row["Alive"],
        head="node:__internal_head__" in has,
        cpus=has.get("CPU", 0),
        memory_gb=round(has.get("memory", 0) / 2**30, 1),
        accelerators=counts,
    )


def _probe_nodes(nodes: list[Node], root: str | None, run: str, timeout_s: float) -> list[Node]:
    """Send the probe to every living node and wait for all answers together."""
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(probe)
    refs = {
        node.id: task.options(
            num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
        ).remote(root, run, node.id)
        for node in nodes
        if node.alive
    }
    done, _ = ray.wait(list(refs.values()), num_returns=len(refs), timeout=timeout_s)
    answers = []
    for node in nodes:
        found: dict[str, Any] = {}
        if node.alive and refs[node.id] not in done:
            found = {"error": f"no answer within {timeout_s:g} s"}
        elif node.alive:
            try:
                found = ray.get(refs[node.id])
            except RayError as error:
                found = {"error": str(error).strip().splitlines()[-1]}
        answers.append(node.model_copy(update=found))
    return answers


def probe(root: str | None, run: str, name: str) -> dict[str, Any]:
    """The task: what one node finds about itself."""
    return {"software": software(), "storage": check_storage(root, run, name) if root else None}


def software() -> dict[str, str | None]:
    """Versions by name, read from the installed metadata: importing torch to ask it would take seconds."""
    return {"python": platform.python_version(), **find_versions(EXAMINED)}


def check_storage(root: str, run: str, name: str, keep: bool = False) -> Storage:
    """Write, read, list and delete one file below ``root``; ``keep`` leaves it for the others to find."""
    milliseconds: dict[str, float] = {}
    sample = os.urandom(SAMPLE_BYTES)
    started = time.perf_counter()

    def done(operation: str) -> None:
        nonlocal started
        milliseconds[operation] = round((time.perf_counter() - started) * 1000, 2)
        started = time.perf_counter()

    try:
        folder = Place.of(root) / f"doctor-{run}"
        file = folder / name
        file.write(sample)
        done("write")
        if file.read() != sample:
            raise StorageError(f"read back other bytes than were written to {file.redacted}")
        done("read")
        names = {place.name for place in folder.list()}
        if name not in names:
            raise StorageError(f"{file.redacted} was written but is not listed")
        done("list")
        if not keep:
            file.delete()
            if file.exists():
                raise StorageError(f"{file.redacted} is still there after it was deleted")
            done("delete")
    except (OSError, pa.ArrowException, BabelrayError) as error:
        return Storage(milliseconds=milliseconds, error=f"{type(error).__name__}: {error}")
    return Storage(milliseconds=milliseconds, shared="driver" in names)


def diagnose(report: Report) -> list[Problem]:
    """What is wrong, the gravest first: nodes without an answer, storage, then versions."""
    alive = [node for node in report.nodes if node.alive]
    problems = [
        Problem(
            where=node.name,
            what=f"the task on this node failed: {node.error}",
            todo="install the same version of babelray in the node's Python, and look at its logs with `ray logs`",
        )
        for node in alive
        if node.error
    ]
    if not alive:
        todo = "look at `ray status` and at the head's logs"
        problems.append(Problem(where="cluster", what="no node is alive", todo=todo))
    answered = [node for node in alive if not node.error]
    return problems + _storage_problems(report, answered) + _version_problems([report.driver, *answered])


def _storage_problems(report: Report, nodes: list[Node]) -> list[Problem]:
    todo = (
        "check that the path exists, its owner and the disk's free space"
        if "://" not in (report.root or "")
        else "check the bucket's name and region, and that the node's instance profile or AWS_ variables may read, "
        "write, list and delete there"
    )
    problems = [
        Problem(where=node.name if node.id != "driver" else "driver", what=f"storage: {node.storage.error}", todo=todo)
        for node in [report.driver, *nodes]
        if node.storage and node.storage.error
    ]
    driver_wrote = report.driver.storage and not report.driver.storage.error
    return problems + [
        Problem(
            where=node.name,
            what=f"does not see the file that the driver wrote below {report.root}: the path is there, on another disk",
            todo="use an s3:// root, or a directory that is mounted on every node (NFS, EFS, Lustre)",
        )
        for node in nodes
        if driver_wrote and node.storage and not node.storage.error and not node.storage.shared
    ]


def _version_problems(nodes: list[Node]) -> list[Problem]:
    problems = []
    for name in ("python", *EXAMINED):
        places = defaultdict(list)
        for node in nodes:
            version = node.software.get(name)
            if version is None and name in OPTIONAL:
                continue
            # the part after + is the build: a CPU node and a GPU node differ in torch's, rightly
            places[(version or "missing").partition("+")[0]].append(node)
        if len(places) > 1 or "missing" in places:
            groups = [f"{version} on {', '.join(n.name for n in group)}" for version, group in sorted(places.items())]
            todo = "use one image for all nodes, or install requirements.lock on each"
            problems.append(Problem(where="cluster", what=f"{name}: {'; '.join(groups)}", todo=todo))
    for node in nodes:
        if node.accelerators and (node.software.get("torch") or "").endswith("+cpu"):
            what = f"has {next(iter(node.accelerators))}, but torch {node.software['torch']} cannot use it"
            todo = "install torch's CUDA build there (on AWS: the -gpu image)"
            problems.append(Problem(where=node.name, what=what, todo=todo))
    return problems
