"""From findings to problems, each with its remedy. The gravest come first; what does not stop a run comes last."""

from collections import defaultdict

from cluster.findings import Node, Problem, Report

EXAMINED = ("babelray", "ray", "torch", "transformers", "sentence-transformers", "vllm", "faiss", "pyarrow")
OPTIONAL = {"vllm"}  # installed only where it is used
DISK_FULL = 0.95  # Ray writes no more objects to a disk from here on (RAY_local_fs_capacity_threshold)
CLOCK_WARNS_S, CLOCK_REFUSED_S = 5, 900  # from 15 minutes on, object stores refuse a signed request
OTHERS = ("AMD", "Intel", "TPU", "HPU", "NPU", "neuron")  # accelerators that are not NVIDIA's begin so
OLDEST_DRIVER = {"cu12": 525, "cu13": 580}  # by CUDA's major version, from NVIDIA's tables of compatibility


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
    if report.missing_workers:
        what = f"asked for {report.missing_workers}, and not all came"
        todo = "look at max_workers, quotas and spot capacity: `ray status` says what is pending and what was refused"
        problems.append(Problem(where="cluster", what=what, todo=todo))
    problems += _storage_problems(report, answered) + _version_problems([report.driver, *answered])
    problems += [problem for node in answered for problem in _machine_problems(node)] + _token_problems(
        report, answered
    )
    return sorted(problems, key=lambda problem: problem.warns)


def _storage_problems(report: Report, nodes: list[Node]) -> list[Problem]:
    todo = (
        "check that the path exists, its owner and the disk's free space"
        if "://" not in (report.root or "")
        else "check the bucket's name and region, and that the node's own account (an instance profile, a service "
        "account, the store's variables) may read, write, list and delete there"
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
            todo="use a root in an object store, or a directory that is mounted on every node (NFS, EFS, Lustre)",
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


def _machine_problems(node: Node) -> list[Problem]:
    """What is wrong with a node's machine."""
    machine, problems = node.machine, []
    if machine is None:
        return []

    def found(what: str, todo: str, warns: bool = False) -> None:
        problems.append(Problem(where=node.name, what=what, todo=todo, warns=warns))

    if machine.disk_full >= DISK_FULL:
        found(
            f"a disk is {machine.disk_full:.0%} full: {machine.disk_free_gb:.1f} GiB free",
            "make room, or let RAY_TMPDIR and BABELRAY_CACHE name a larger disk; BABELRAY_CACHE_GB bounds the cache",
        )
    if 0 < machine.shared_memory_gb < node.object_store_gb:
        found(
            f"/dev/shm holds {machine.shared_memory_gb:.1f} GiB, Ray's object store {node.object_store_gb:.1f} GiB",
            "give the container more (--shm-size; on Kubernetes KubeRay does), else objects go through a disk",
            warns=True,
        )
    if machine.clock_off_s > CLOCK_WARNS_S:
        found(
            f"the clock is {machine.clock_off_s:.0f} s from the driver's",
            "run chrony or systemd-timesyncd there: stores refuse requests that are signed at a wrong time",
            warns=machine.clock_off_s < CLOCK_REFUSED_S,
        )
    return problems + _driver_problems(node, machine.gpu_driver)


def _driver_problems(node: Node, driver: str) -> list[Problem]:
    if not any(not name.startswith(OTHERS) for name in node.accelerators):
        return []
    if not driver:
        what = "has GPUs, and NVIDIA's driver was not found"
        todo = "install the driver on the machine, and start the container with the NVIDIA runtime (--gpus all)"
        return [Problem(where=node.name, what=what, todo=todo)]
    build = (node.software.get("torch") or "").partition("+")[2]
    oldest = OLDEST_DRIVER.get(build[:4], 0)
    if int(driver.partition(".")[0]) < oldest:
        what = f"NVIDIA's driver is {driver}, and torch's build for {build} needs {oldest} or newer"
        return [Problem(where=node.name, what=what, todo="take an image of the machine with a newer driver")]
    return []


def _token_problems(report: Report, nodes: list[Node]) -> list[Problem]:
    """Nodes that ask for no token, where others than this machine may reach them."""
    reachable = [node for node in nodes if not node.ip.startswith("127.") and not report.private]
    off = [node.name for node in reachable if node.machine and not node.machine.token]
    if not off:
        return []
    what = f"authentication is off on {', '.join(off)}: whoever reaches Ray's ports can run code there"
    todo = "ray get-auth-token --generate, copy ~/.ray/auth_token to every node, start Ray with RAY_AUTH_MODE=token"
    return [Problem(where="cluster", what=what, todo=todo, warns=True)]
