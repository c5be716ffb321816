"""Clusters of a plan: what a Ray cluster file holds, and what it costs."""

from pathlib import Path

import pytest
import yaml

from cluster.component import Resources
from cluster.errors import RecipeError
from pipelines.costs.cluster import name_gpu, read_cluster, this_machine

FILE = str(Path(__file__).parents[1] / "ray_cluster.yaml")


def test_the_repositorys_own_file() -> None:
    cluster = read_cluster(FILE)
    cpu, on_demand, gpu = cluster.workers
    assert (cpu.name, cpu.count, cpu.cpus, cpu.gpus, cpu.price) == ("cpu", 16, 16, 0, 0.8064)
    assert (gpu.name, gpu.count, gpu.cpus, gpu.gpus, gpu.gpu) == ("gpu", 8, 8, 1, "L4")
    assert gpu.price == pytest.approx(0.35 * 0.9776)  # spot
    assert (on_demand.name, on_demand.count, on_demand.gpu, on_demand.price) == ("gpu-on-demand", 2, "L4", 0.9776)
    assert cluster.head is not None
    assert cluster.head.cpus == 0
    assert cluster.idle_minutes == 10
    assert cluster.capacity["CPU"] == 16 * 16 + 10 * 8
    assert cluster.capacity["GPU"] == 10


def test_prices_and_the_share_of_spot_are_the_users_to_say() -> None:
    dear = read_cluster(FILE, ["g6.2xlarge=2", "cpu=0.5"])
    assert {node.name: node.price for node in dear.workers} == {"cpu": 0.5, "gpu-on-demand": 2.0, "gpu": 2.0}
    assert read_cluster(FILE, ["spot=0.5"]).workers[2].price == pytest.approx(0.4888)


def test_steps_go_where_they_fit_and_cost_least() -> None:
    cluster = read_cluster(FILE)
    assert cluster.choose(Resources(cpus=8)).name == "cpu"
    assert cluster.choose(Resources(cpus=4, gpus=1, memory_gb=16)).name == "gpu"
    assert cluster.choose(Resources(cpus=32)) is None
    assert cluster.choose(Resources(cpus=1, gpus=2)) is None
    assert cluster.choose(Resources(cpus=1, gpus=1, memory_gb=30)) is None  # Ray hands out 70 % of 32 GiB
    cpu, *_ = cluster.workers
    assert cpu.fits(Resources(cpus=3)) == 5
    assert cpu.fits(Resources(cpus=1, memory_gb=10)) == 4  # of 44.8 GiB


def write_cluster(path, **types):
    tree = {"cluster_name": "c", "max_workers": 4, "head_node_type": "head", "available_node_types": types}
    tree["available_node_types"].setdefault("head", {"node_config": {"InstanceType": "m7i.xlarge"}})
    path.write_text(yaml.safe_dump(tree))
    return str(path)


def test_types_that_are_not_known_say_what_they_hold(tmp_path) -> None:
    mine = {"resources": {"CPU": 64, "GPU": 4, "accelerator_type:A100": 1}, "max_workers": 2}
    cluster = read_cluster(write_cluster(tmp_path / "c.yaml", mine=mine), ["mine=12.5"])
    node = next(node for node in cluster.workers if node.name == "mine")
    assert (node.cpus, node.gpus, node.gpu, node.price, node.count) == (64, 4, "A100", 12.5, 2)
    assert cluster.workers[0].name == "head"  # it has CPUs, so it works
    bare = write_cluster(tmp_path / "bare.yaml", mine={"node_config": {"InstanceType": "x9.big"}})
    with pytest.raises(RecipeError, match=r"x9.big, which is not known here.*resources"):
        read_cluster(bare)


@pytest.mark.parametrize("wrong", ["g6.2xlarge", "g6.2xlarge=cheap", "=3", "g6.2xlarge=-1", "g6.2xlarge=inf"])
def test_wrong_prices(wrong) -> None:
    with pytest.raises(RecipeError, match="--price TYPE=DOLLARS"):
        read_cluster(FILE, [wrong])


def test_a_price_of_what_is_not_there() -> None:
    with pytest.raises(RecipeError, match=r"--price p5.48xlarge: .* has no such type; it has .*gpu \(g6.2xlarge\)"):
        read_cluster(FILE, ["p5.48xlarge=1"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("a: [", "is not YAML"),
        ("a: 1", "available_node_types, got a"),
        ("available_node_types: {a: {}}", "head_node_type to be one of a"),
    ],
)
def test_wrong_files(tmp_path, text, message) -> None:
    if text is not None:
        (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(RecipeError, match=message):
        read_cluster(str(tmp_path / "c.yaml"))


def test_this_machine_is_free() -> None:
    (node,) = this_machine().workers
    assert node.cpus >= 1
    assert node.price is None
    assert this_machine().is_local


@pytest.mark.parametrize(
    ("name", "kind"),
    [("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA A100-SXM4-40GB", "A100"), ("NVIDIA L4", "L4"), ("Tesla T4", "T4"),
     ("NVIDIA L40S", "L40S"), ("Abacus 3", "Abacus 3")],
)  # fmt: skip
def test_names_of_gpus(name, kind) -> None:
    assert name_gpu(name) == kind
