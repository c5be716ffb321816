"""Connecting to Ray: to the cluster that this process belongs to, or to a small one of its own.

Inside ``ray job submit``, or with ``RAY_ADDRESS`` set ("auto" finds the one on this machine), the cluster is there
and is used as it is. Elsewhere a local one is started, without a dashboard and an autoscaler, and with a small object
store: stages exchange files, not objects.
"""

import logging
import os
import queue
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

from cluster import WAITING
from cluster.capacity import amounts
from cluster.component import Resources
from cluster.stop import ExecutorWatch

KEPT_PROCESSES = 8  # idle ones that a Ray of our own keeps, at least
STORE_BYTES = 512 << 20  # plans and receipts are all that passes through the object store
# What workers need from the driver's environment to find the same object store, caches, and collector of traces. Keys
# are not passed on: a runtime environment can be read on the dashboard, and temporary keys run out under a long run.
PASSED_ON = (
    *("AWS_", "AZURE_STORAGE_ACCOUNT_NAME", "GOOGLE_CLOUD_PROJECT", "STORAGE_EMULATOR_HOST"),
    *("BABELRAY_", "HF_", "OTEL_", "TQDM_", "TRANSFORMERS_", "MPLCONFIGDIR"),
)
SECRETS = frozenset(
    {
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN"),
        *("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"),  # may hold the key of a collector
    }
)
_connecting = threading.Lock()


def is_given() -> bool:
    """Whether this process uses a cluster that was there before it, which may grow. Else it starts a Ray of its own,
    with what this machine has."""
    return bool(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR") or os.environ.get("RAY_ADDRESS"))


def connect(with_data: bool = True) -> None:
    """Connect this process to Ray, once, from any thread. A second call does nothing.

    ``with_data``: Ray Data will be used; importing it takes a third of a second and 15 MB. Where it will not, workers
    that are idle end at once.
    """
    with _connecting:
        if is_connected():
            return
        if threading.current_thread() is threading.main_thread():
            _connect(with_data)
            return
        # Linux ends the daemons that Ray starts when the *thread* that started them ends: one that never does
        outcome: queue.Queue[BaseException | None] = queue.Queue()
        threading.Thread(target=_connect_and_stay, args=(outcome, with_data), daemon=True, name="ray").start()
        if error := outcome.get():
            raise error


def environment_of_workers(environment: Mapping[str, str]) -> dict[str, str]:
    """What workers get of the driver's environment. Workers of a Ray that this process starts inherit the rest too; a
    cluster's nodes have keys of their own."""
    passed = {name: v for name, v in environment.items() if name.startswith(PASSED_ON) and name not in SECRETS}
    return passed | {"TOKENIZERS_PARALLELISM": "false"} | {n: environment.get(n, v) for n, v in WAITING.items()}


def is_connected() -> bool:
    """Whether this process is connected to Ray."""
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


def _connect_and_stay(outcome: "queue.Queue[BaseException | None]", with_data: bool) -> None:
    try:
        _connect(with_data)
    except BaseException as error:
        outcome.put(error)
        return
    outcome.put(None)
    threading.Event().wait()


def _connect(with_data: bool) -> None:
    options: dict[str, Any] = {"runtime_env": {"env_vars": environment_of_workers(os.environ)}}
    if os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"):
        options = {}  # a submitted job's own runtime environment reaches the workers; a second would collide with it
    elif not is_given():
        # address: without it Ray first looks for a cluster that once ran here, and waits for it where it has died
        options |= {"address": "local", "include_dashboard": False, "log_to_driver": False}
        options["object_store_memory"] = STORE_BYTES
        # Ray ends idle processes beyond one per CPU after a second, and Ray Data then starts others, which import all
        # again
        kept = max(KEPT_PROCESSES, os.cpu_count() or 1) if with_data else 0
        os.environ.setdefault("RAY_num_workers_soft_limit", str(kept))
        if port := os.environ.get("BABELRAY_METRICS_PORT"):
            options["_metrics_export_port"] = int(port)  # else Ray takes one that is free
    _set_ray_environment()
    import ray

    with nullcontext() if is_given() else _without_greeting(), _with_few_daemons():
        ray.init(logging_level=logging.ERROR, **options)
    if with_data:
        _quiet_ray_data()


def _set_ray_environment() -> None:
    """Set what Ray reads as it is imported."""
    if not is_given():
        # fatal: the C++ core reports expected ends of workers as errors on the terminal
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # else a call that a thread still makes while the process ends would start another cluster
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")


@contextmanager
def _with_few_daemons() -> Iterator[None]:
    """Start the daemons of a Ray of our own in process groups of their own: a SIGTERM to this process's group then does
    not reach them; they end with this process. Ray itself protects them from SIGINT alone.

    Left out are the autoscaler, since this machine does not grow, and what passes workers' lines on to the terminal,
    where none are wanted: 50 MB each.
    """
    from ray._private import services
    from ray._private.node import Node

    def do_nothing(*_: Any) -> None:
        pass

    popen: Any = services.ConsolePopen
    replaced = (
        (services, "ConsolePopen", partial(popen, process_group=0)),
        (Node, "start_monitor", do_nothing),
        (Node, "start_log_monitor", do_nothing),
    )
    with ExitStack() as stack:
        for owner, name, ours in replaced:
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, ours)
        yield


@contextmanager
def _without_greeting() -> Iterator[None]:
    """Hold back what is written to stderr, and pass it on without the line in which Ray's core names its log level.

    The core writes from C++, to the file descriptor, so that is what is turned aside, for the whole process.
    """
    sys.stderr.flush()
    real = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            os.close(real)
            held.seek(0)
            for line in held:
                if b"Set ray log level" not in line:
                    os.write(2, line)


def _quiet_ray_data() -> None:
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # before the import, which warns that it is quiet …
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # … and sets its level anew
    context = ray.data.DataContext.get_current()
    context.custom_execution_callback_classes = [ExecutorWatch]  # type: ignore[list-item]  # has its four methods
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # The default 0 lets one node that is lost while an actor starts end the run. Works are built later, in the actor's
    # first call: what ends a worker there is counted by cluster.pool.
    context.max_consecutive_actor_init_deaths = 5
    context.execution_no_progress_timeout_s = -1  # one part may take hours (a teacher of 13 G parameters)


def room(resources: Resources) -> int:
    """How many actors that take ``resources`` fit on the cluster's nodes as they are now, were they idle."""
    import ray

    takes = amounts(resources)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(min(int(node.get(name, 0) // amount) for name, amount in takes.items()) for node in nodes)


def capacity(with_gpus: bool = True) -> dict[str, float]:
    """What the cluster can hold of each of Ray's resources: what it has now, or may grow to by its autoscaler's limits.

    On this machine alone, before Ray is started, its CPUs, memory without a limit, and GPUs if they matter; counting
    those imports Ray.
    """
    if is_given():
        connect()
    with _connecting:
        is_ready = is_connected()
    if not is_ready:
        # memory: Ray itself, once it is started, holds workers to what it counts
        found = {"CPU": float(len(os.sched_getaffinity(0))), "memory": float(2**63)}
        return {**found, "GPU": float(count_gpus())} if with_gpus else found
    import ray
    from ray._private.state import state

    limits = state.get_max_resources_from_cluster_config() or {}
    return {**limits, **{name: max(limits.get(name, 0), have) for name, have in ray.cluster_resources().items()}}


def count_gpus() -> int:
    """GPUs of this machine as Ray would count them, without starting it: fewer where CUDA_VISIBLE_DEVICES says so."""
    _set_ray_environment()
    from ray._private.accelerators import get_accelerator_manager_for_resource

    manager = get_accelerator_manager_for_resource("GPU")
    if manager is None:
        return 0
    visible = manager.get_current_process_visible_accelerator_ids()
    count = int(manager.get_current_node_num_accelerators())
    return count if visible is None else min(count, len(visible))


def node_id() -> str:
    """Ray's id of the node that this process runs on; empty outside Ray."""
    if not is_connected():
        return ""
    import ray

    return str(ray.get_runtime_context().get_node_id())


def living_nodes() -> set[str]:
    """The ids of the nodes that are alive; outside Ray this process's alone."""
    if not is_connected():
        return {node_id()}
    import ray

    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}
