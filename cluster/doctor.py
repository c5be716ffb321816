"""The doctor: does every node of the cluster answer, run the same software, and reach the storage?

``examine`` sends one task to each node, which takes no CPU (so it reaches a busy node, and a head that takes no work).
The task reports the versions installed, writes a file of 1 MiB below the root, reads it back, lists and deletes it, and
looks for a file that the driver wrote: a root that exists on every node, but is not the same disk, is otherwise found
late. It looks at the machine too (``cluster.machine``). ``diagnose`` turns the findings into problems, each with its
remedy. Cost: a few seconds.

A cluster that scales from nothing has no workers to examine: ``hold_workers`` asks for some.
"""

import os
import platform
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from cluster import session
from cluster.diagnosis import EXAMINED, diagnose
from cluster.errors import BabelrayError, StorageError
from cluster.findings import Node, Report, Storage
from cluster.machine import examine_machine, measure_clock
from cluster.software import find_versions
from cluster.storage import Place

SAMPLE_BYTES = 1 << 20
ACCELERATORS = ("GPU", "TPU", "HPU", "NPU", "neuron_cores")


def examine(root: str | None, timeout_s: float = 60, missing_workers: str = "") -> Report:
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
        missing_workers=missing_workers,
    )
    return report.model_copy(update={"problems": tuple(diagnose(report))})


@contextmanager
def hold_workers(count: int, with_gpu: bool, wait_s: float) -> Iterator[str]:
    """Ask for nodes that have a CPU, or a GPU, each to spare, and keep them in the block. Yields what was asked for
    where it did not come in time, else an empty string."""
    if not count:
        yield ""
        return
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    amount = "GPU" if with_gpu else "CPU"
    group = placement_group([{amount: 1}] * count, strategy="STRICT_SPREAD")  # each on a node of its own
    try:
        came, _ = ray.wait([group.ready()], timeout=wait_s)
        yield "" if came else f"{count} workers with a {amount} to spare each, for {wait_s:g} s"
    finally:
        remove_placement_group(group)


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
        object_store_gb=round(has.get("object_store_memory", 0) / 2**30, 1),
        accelerators=counts,
    )


def _probe_nodes(nodes: list[Node], root: str | None, run: str, timeout_s: float) -> list[Node]:
    """Send the probe to every living node and wait for all answers together."""
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task, sent = ray.remote(probe), time.time()
    refs = {
        node.id: task.options(
            num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
        ).remote(root, run, node.id)
        for node in nodes
        if node.alive
    }
    done, _ = ray.wait(list(refs.values()), num_returns=len(refs), timeout=timeout_s)
    received = time.time()
    answers = []
    for node in nodes:
        found: dict[str, Any] = {}
        if node.alive and refs[node.id] not in done:
            found = {"error": f"no answer within {timeout_s:g} s"}
        elif node.alive:
            try:
                found = ray.get(refs[node.id])
                off_s = measure_clock(found.pop("now"), sent, received)
                found["machine"] = found["machine"].model_copy(update={"clock_off_s": off_s})
            except RayError as error:
                found = {"error": str(error).strip().splitlines()[-1]}
        answers.append(node.model_copy(update=found))
    return answers


def probe(root: str | None, run: str, name: str) -> dict[str, Any]:
    """The task: what one node finds about itself."""
    now = time.time()
    storage = check_storage(root, run, name) if root else None
    return {"now": now, "software": software(), "machine": examine_machine(), "storage": storage}


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
