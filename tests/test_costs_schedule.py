"""The simulated run: when steps run and how long machines are up, against schedules drawn by hand."""

import pytest

from cluster.component import Component, Resources
from cluster.step import Step
from pipelines.costs.cluster import Cluster, NodeType
from pipelines.costs.schedule import Load, Turn, duration, machine_seconds, simulate
from pipelines.tables import DOCS
from works import Count, Upper


class Named(Component):
    """Tells steps of one work apart."""

    name: str


CPU = NodeType("cpu", "m", 2, 4, 100, price=1.0)
GPU = NodeType("gpu", "g", 4, 4, 100, 1, "L4", price=3.0)
CLUSTER = Cluster("c", (CPU, GPU))


def source(name, cpus=1.0):
    return Step(name, Count, Named(name=name), table=DOCS, resources=Resources(cpus=cpus))


def mapped(name, parent, **resources):
    return Step(
        name, Upper, Named(name=name), {"docs": parent}, table=DOCS, rows=("docs",), resources=Resources(**resources)
    )


def test_parts_are_shared_out_and_the_longest_part_counts() -> None:
    load = Load(3.0, 100.0, 10, CPU)
    assert duration([load], 4) == 3 + 100 / 4
    assert duration([load], 100) == 3 + 10  # a part is not divided
    assert duration([Load(3.0, 100.0, 10, CPU, serial_s=40.0)], 4) == 3 + 40 + 60 / 4
    assert duration([load, Load(5.0, 20.0, 2, CPU)], 4) == 5 + 120 / 4  # one pool, started once
    assert duration([Load(3.0, 100.0, 1, GPU)], 8, is_training=True) == 103


def test_languages_share_a_pool_and_gpus_run_beside_cpus() -> None:
    """Two sources in one pool of two (one task each), then translation on four GPUs beside a step on CPUs."""
    en, de = source("docs-en"), source("docs-de")
    zh, fa = mapped("translate-zh", en, cpus=1, gpus=1), mapped("translate-fa", en, cpus=1, gpus=1)
    count = mapped("count", de, cpus=4)
    loads = {
        en.id: Load(2.0, 10.0, 1, CPU),
        de.id: Load(2.0, 6.0, 1, CPU),
        zh.id: Load(5.0, 80.0, 40, GPU),
        fa.id: Load(5.0, 40.0, 40, GPU),
        count.id: Load(1.0, 8.0, 8, CPU),
    }
    turns = simulate([en, de, zh, fa, count], loads, CLUSTER)
    by_name = {turn.steps[0].name: turn for turn in turns}
    assert by_name["docs-en"].steps == (en, de)
    assert (by_name["docs-en"].start_s, by_name["docs-en"].end_s) == (0, 12)  # no shorter than the longer source
    together = by_name["translate-zh"]
    assert set(together.steps) == {zh, fa}
    assert (together.start_s, together.end_s, together.actors, together.machines) == (12, 12 + 5 + 30, 4, 4)
    assert together.share(zh, loads) == pytest.approx(2 / 3)
    # 24 CPUs, of which one is kept for each of 4 GPUs: 5 actors of 4; but the machines without GPUs hold 2
    assert (by_name["count"].start_s, by_name["count"].end_s, by_name["count"].machines) == (12, 12 + 1 + 4, 2)


def test_a_step_waits_where_there_is_no_room() -> None:
    docs = source("docs")
    first, second = mapped("first", docs, cpus=4, gpus=1), mapped("second", docs, cpus=3, gpus=1)
    loads = {docs.id: Load(0, 1, 1, CPU), first.id: Load(0, 40, 8, GPU), second.id: Load(0, 20, 8, GPU)}
    turns = simulate([docs, first, second], loads, CLUSTER)
    assert [(t.steps[0].name, t.start_s, t.end_s) for t in turns] == [
        ("docs", 0, 1), ("first", 1, 11), ("second", 11, 16),
    ]  # fmt: skip


def turn(start, end, machines, node=GPU):
    return Turn((), start, end, machines, node, machines)


def test_machines_are_paid_from_first_use_until_idle_for_long() -> None:
    assert machine_seconds([turn(0, 100, 2)], 10) == {GPU: 2 * 110}
    # used again within the time, so the gap is paid and the machine is not started anew
    assert machine_seconds([turn(0, 100, 2), turn(105, 200, 1)], 10) == {GPU: 110 + 210}
    # later than that: it was ended, and another is started
    assert machine_seconds([turn(0, 100, 1), turn(150, 200, 1)], 10) == {GPU: 110 + 60}
    # no more than there are: turns side by side share them
    assert machine_seconds([turn(0, 100, 4), turn(50, 120, 1)], 0) == {GPU: 3 * 100 + 120}
