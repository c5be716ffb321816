"""The doctor on a real cluster of two nodes with good, broken and S3 storage; its diagnosis on made-up findings."""

import json
import os
import subprocess
import sys

import pytest
from rich.console import Console
from typer.testing import CliRunner

from cluster.__main__ import app, show
from cluster.diagnosis import diagnose
from cluster.doctor import software
from cluster.findings import Machine, Node, Report, Storage
from cluster.machine import examine_machine, find_gpu_driver, measure_clock

# Ray Data trips over its own deprecated settings when it is imported
pytestmark = pytest.mark.filterwarnings("ignore:.use_push_based_shuffle:DeprecationWarning")
VERSIONS = dict.fromkeys(software(), "1.0")
FINE = Storage(milliseconds={"write": 1, "read": 1, "list": 1, "delete": 1}, shared=True)


@pytest.fixture(scope="module")
def cluster():
    """Two nodes: a head without CPUs and a worker. This process is connected through RAY_ADDRESS, as a job is."""
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        nodes.add_node(num_cpus=1)
        patch.setenv("RAY_ADDRESS", nodes.address)
        yield nodes
        ray.shutdown()
        nodes.shutdown()


def doctor(*arguments):
    result = CliRunner().invoke(app, ["doctor", *arguments], catch_exceptions=False)
    return result.exit_code, result.stdout


def grave(report):
    """The problems that end a run. This cluster asks for no token, which is a warning."""
    return [problem for problem in report["problems"] if not problem["warns"]]


def test_good_root_on_two_nodes_is_well(cluster, tmp_path):
    code, out = doctor("--root", str(tmp_path), "--json")
    report = json.loads(out)
    assert (code, grave(report)) == (0, [])
    assert [problem["what"].partition(" on ")[0] for problem in report["problems"]] == ["authentication is off"]
    assert sorted((n["head"], n["alive"], n["cpus"]) for n in report["nodes"]) == [(False, True, 1), (True, True, 0)]
    for node in report["nodes"]:
        assert node["storage"]["shared"]
        assert set(node["storage"]["milliseconds"]) == {"write", "read", "list", "delete"}
        assert node["software"] == report["driver"]["software"] == software()
        assert node["machine"]["disk_free_gb"] > 0
        assert node["machine"]["shared_memory_gb"] > 0
        assert node["machine"]["clock_off_s"] == 0
        assert not node["machine"]["token"]
    assert list(tmp_path.iterdir()) == []  # nothing is left behind


def test_workers_that_are_there_are_examined_and_those_that_do_not_come_are_a_problem(cluster):
    assert doctor("--workers", "1", "--wait", "30")[0] == 0
    code, out = doctor("--workers", "2", "--wait", "2", "--json")
    (problem,) = grave(json.loads(out))
    assert code == 1
    assert problem["what"] == "asked for 2 workers with a CPU to spare each, for 2 s, and not all came"
    assert "quotas" in problem["todo"]
    assert doctor("--workers", "1", "--wait", "30")[0] == 0  # what was held is given back


def test_s3_root_is_well(cluster, s3_root):
    code, out = doctor("--root", s3_root, "--json")
    report = json.loads(out)
    assert (code, grave(report), report["root"]) == (0, [], "s3://babelray")
    assert "secret_key" not in out
    assert [node["storage"]["error"] for node in report["nodes"]] == [None, None]


def test_missing_bucket_is_reported_for_every_node(cluster, s3_root):
    code, out = doctor("--root", s3_root.replace("//babelray", "//nowhere"), "--json")
    problems = grave(json.loads(out))
    assert code == 1
    assert len(problems) == 3  # the driver and two nodes
    assert all("bucket" in problem["todo"] for problem in problems)
    assert "secret_key" not in out


def test_unwritable_root_is_reported_to_people(cluster, tmp_path):
    (tmp_path / "file").write_text("in the way")
    code, out = doctor("--root", str(tmp_path / "file" / "runs"))
    assert code == 1
    assert "all is well" not in out
    assert out.startswith(f"Ray: the cluster at {cluster.address}")
    assert out.count("NotADirectoryError") == 3
    assert "check that the path exists" in " ".join(out.split())


def test_without_root_storage_is_not_checked(cluster):
    code, out = doctor("--json")
    assert code == 0
    assert [node["storage"] for node in json.loads(out)["nodes"]] == [None, None]


def test_lost_node_is_listed_and_the_others_are_examined(cluster):
    extra = cluster.add_node(num_cpus=1)
    cluster.remove_node(extra)
    code, out = doctor("--json")
    report = json.loads(out)
    assert code == 0  # an autoscaler ends nodes all day
    assert sorted(node["alive"] for node in report["nodes"]) == [False, True, True]


def test_unreachable_cluster_says_what_to_check():
    env = os.environ | {"RAY_ADDRESS": "nowhere"}
    done = subprocess.run([sys.executable, "-m", "cluster", "doctor"], env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert "RAY_ADDRESS" in done.stderr
    assert "Traceback" not in done.stderr


def test_private_ray_is_named():
    console = Console(width=100)
    with console.capture() as capture:
        show(report(node(1)).model_copy(update={"private": True}), console)
    assert capture.get().startswith("Ray: a private one on this machine")


def report(*nodes, driver=None, root="/runs"):
    driver = driver or Node(id="driver", ip="10.0.0.1", alive=True, software=VERSIONS, storage=FINE)
    return Report(address="10.0.0.1:6379", root=root, driver=driver, nodes=nodes)


def node(number, **found):
    found = {"software": VERSIONS, "storage": FINE} | found
    return Node(id=f"{number:06d}", ip=f"10.0.0.{number}", alive=True, **found)


def test_diagnosis_of_equal_nodes_is_empty():
    assert diagnose(report(node(1), node(2))) == []


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (
            {"software": VERSIONS | {"ray": "2.59.0"}},
            "10.0.0.1 (000001); 2.59.0 on 10.0.0.2 (000002)",
        ),
        ({"software": VERSIONS | {"faiss": None}}, "faiss: 1.0 on"),
        ({"storage": FINE.model_copy(update={"shared": False})}, "does not see the file that the driver wrote"),
        ({"storage": Storage(error="OSError: No space left on device")}, "No space left on device"),
        ({"error": "No module named 'cluster'", "software": {}, "storage": None}, "No module named 'cluster'"),
        ({"accelerators": {"L4": 1}, "software": VERSIONS | {"torch": "1.0+cpu"}}, "has L4, but torch 1.0+cpu"),
    ],
    ids=["version", "missing", "other disk", "full disk", "no answer", "cpu build"],
)
def test_diagnosis_finds_the_one_problem_and_its_remedy(other, expected):
    problems = diagnose(report(node(1), node(2, **other)))
    assert len(problems) == 1
    assert expected in problems[0].what
    assert problems[0].todo


MACHINE = Machine(token=True, disk_free_gb=100, disk_full=0.5, shared_memory_gb=8)


@pytest.mark.parametrize(
    ("found", "machine", "what", "warns"),
    [
        ({}, {"token": False}, "authentication is off on 10.0.0.1 (000001)", True),
        ({}, {"disk_full": 0.97, "disk_free_gb": 2.4}, "a disk is 97% full: 2.4 GiB free", False),
        ({"object_store_gb": 9}, {}, "/dev/shm holds 8.0 GiB, Ray's object store 9.0 GiB", True),
        ({}, {"clock_off_s": 30}, "the clock is 30 s from the driver's", True),
        ({}, {"clock_off_s": 1000}, "the clock is 1000 s from the driver's", False),
        ({"accelerators": {"L4": 1}}, {}, "has GPUs, and NVIDIA's driver was not found", False),
        ({"accelerators": {"L4": 1}}, {"gpu_driver": "550.54.15"}, "torch's build for cu130 needs 580 or newer", False),
    ],
    ids=["token", "disk", "shared memory", "clock", "clock far off", "no driver", "old driver"],
)
def test_diagnosis_of_a_machine(found, machine, what, warns):
    versions = VERSIONS | {"torch": "2.13.0+cu130"}
    driver = Node(id="driver", ip="10.0.0.1", alive=True, software=versions, storage=FINE)
    one = node(1, software=versions, machine=MACHINE.model_copy(update=machine), **found)
    whole = report(one, driver=driver)
    (problem,) = diagnose(whole)
    assert what in problem.what
    assert problem.todo
    assert problem.warns is warns
    assert whole.model_copy(update={"problems": (problem,)}).is_well is warns


def test_a_good_machine_is_no_problem():
    cards = [({"L4": 1}, "580.65.06"), ({"TPU": 4}, ""), ({"AMD-Instinct-MI300X": 1}, ""), ({}, "")]
    for accelerators, driver in cards:
        machine = MACHINE.model_copy(update={"gpu_driver": driver})
        assert diagnose(report(node(1, accelerators=accelerators, machine=machine, object_store_gb=8))) == []


def test_on_this_machine_alone_no_token_is_no_problem():
    here = node(1, machine=MACHINE.model_copy(update={"token": False})).model_copy(update={"ip": "127.0.0.1"})
    assert diagnose(report(here)) == []


def test_what_a_run_can_do_with_comes_last():
    machine = MACHINE.model_copy(update={"clock_off_s": 30, "disk_full": 0.99})
    assert [problem.warns for problem in diagnose(report(node(1, machine=machine)))] == [False, True]


def test_the_machine_of_this_process():
    machine = examine_machine()
    assert 0 < machine.disk_full < 1
    assert machine.disk_free_gb > 0
    assert not machine.token  # RAY_AUTH_MODE is "disabled" in these tests


def test_clocks_are_apart_by_what_the_time_of_the_answer_cannot_explain():
    assert measure_clock(105.0, sent=100.0, received=110.0) == 0
    assert measure_clock(90.0, sent=100.0, received=110.0) == 10
    assert measure_clock(115.5, sent=100.0, received=110.0) == 5.5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version:",
            "550.54.15",
        ),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build", "580.65.06"),
    ],
)
def test_the_driver_is_read_from_the_kernel(tmp_path, text, expected):
    (tmp_path / "version").write_text(text)
    assert find_gpu_driver(tmp_path / "version") == expected


def test_builds_of_one_version_and_vllm_on_some_nodes_are_no_mismatch():
    cpu = node(1, software=VERSIONS | {"torch": "2.13.0+cpu", "vllm": None})
    gpu = node(2, software=VERSIONS | {"torch": "2.13.0+cu128"})
    driver = Node(id="driver", ip="10.0.0.1", alive=True, software=cpu.software, storage=FINE)
    assert diagnose(report(cpu, gpu, driver=driver)) == []


def test_dead_cluster_is_a_problem():
    assert [p.what for p in diagnose(report())] == ["no node is alive"]
