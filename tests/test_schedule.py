"""The books of a run: what may start, what fits, at what cost for thousands of steps."""

import random
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import works
from cluster import executor
from cluster.artifact import MANIFEST
from cluster.capacity import Capacity
from cluster.component import Component, Resources
from cluster.schedule import Schedule
from cluster.step import Step
from cluster.storage import Place
from pipelines.tables import DOCS


class Number(Component):
    n: int


def chain(length: int, variant: int) -> Step:
    """A path of steps that ends in a directory step."""
    step = Step(f"source-{variant}", works.Count, works.Numbers(parts=variant + 1), table=DOCS)
    for n in range(length):
        step = Step(f"row-{n}", works.Upper, Number(n=n), {"docs": step}, DOCS, ("docs",))
    return Step(f"train-{variant}", works.nap, Number(n=variant), {"docs": step})


def test_waves_are_what_shares_work_and_resources() -> None:
    targets = [chain(1, variant) for variant in range(3)]
    schedule = Schedule([s for t in targets for s in (t.parents["docs"].parents["docs"], t.parents["docs"], t)])
    (sources,) = schedule.waves
    assert [step.name for step in sources] == ["source-0", "source-1", "source-2"]
    schedule.start(sources)
    assert schedule.waves == []
    schedule.finish(sources[:2])
    (rows,) = schedule.waves
    assert [step.name for step in rows] == ["row-0", "row-0"]
    schedule.start(rows)
    schedule.finish([sources[2]])
    assert len(schedule.waves) == 1, "what becomes ready later is a wave of its own"
    schedule.finish(rows)
    assert [[step.name for step in wave] for wave in schedule.waves] == [["row-0"], ["train-0"], ["train-1"]]
    assert not schedule.is_done


def test_sources_are_one_wave_whatever_they_read_and_others_are_not() -> None:
    steps = [Step(f"{work.__name__}-0", work, Number(n=0), table=DOCS) for work in (works.Count, works.Upper)]
    other = Step("elsewhere", works.Count, Number(n=1), table=DOCS, resources=Resources(cpus=2))
    assert [[s.name for s in wave] for wave in Schedule([*steps, other]).waves] == [
        ["Count-0", "Upper-0"],
        ["elsewhere"],
    ]


@given(st.integers(0, 2**32), st.integers(1, 25))
def test_every_step_starts_once_and_after_its_inputs(seed: int, count: int) -> None:
    rng = random.Random(seed)
    steps: list[Step] = []
    for n in range(count):
        inputs = {f"i{k}": step for k, step in enumerate(rng.sample(steps, min(len(steps), rng.randint(0, 3))))}
        table = DOCS if rng.random() < 0.5 else None
        steps.append(Step(f"step-{n}", rng.choice([works.Upper, works.Count]), Number(n=n), inputs, table))
    schedule, finished, running = Schedule(steps), set(), []
    while not schedule.is_done:
        for wave in schedule.waves:
            assert all(parent.id in finished for step in wave for parent in step.parents.values())
            schedule.start(wave)
            running += wave
        step = running.pop(rng.randrange(len(running)))
        assert step.id not in finished
        finished.add(step.id)
        schedule.finish([step])
    assert finished == {step.id for step in steps}


def test_books_of_2400_steps_cost_less_than_a_second_a_wave(tmp_path: Path) -> None:
    """Forty variants of sixty steps each, of which all but the sources differ."""
    targets = [chain(58, variant) for variant in range(40)]
    started = time.process_time()
    missing = executor.find_missing(targets, Place.of(tmp_path))
    assert len(missing) == 40 * 60
    looked_s = time.process_time() - started
    schedule, waves = Schedule(missing), 0
    capacity = Capacity(lambda: {"CPU": 64.0})
    started = time.process_time()
    while not schedule.is_done:
        for wave in schedule.waves:
            grant = capacity.take(wave[0].resources, wave[0].workers, 64)
            assert grant
            capacity.give_back(grant)
            schedule.start(wave)
            schedule.finish(wave)
            waves += 1
    print(f"finding 2,400 missing steps {looked_s:.2f} s, {waves} waves {time.process_time() - started:.3f} s")
    assert waves == 59 + 40
    assert looked_s < 5
    assert (time.process_time() - started) / waves < 0.1


def test_thousands_of_ready_waves_are_looked_through_in_a_moment() -> None:
    """Forty of them run; for each of the others there is no room."""
    schedule = Schedule([Step(f"nap-{n}", works.nap, Number(n=n)) for n in range(2400)])
    capacity = Capacity(lambda: {"CPU": 40.0})
    started = time.process_time()
    granted = [capacity.take(wave[0].resources, 1, 1) for wave in schedule.waves]
    assert sum(grant is not None for grant in granted) == 40
    assert time.process_time() - started < 1


def test_nothing_below_a_complete_artifact_is_looked_at(tmp_path: Path) -> None:
    target = chain(3, 0)
    root, third = Place.of(tmp_path), target.parents["docs"]
    (root / third.id / MANIFEST).write(b"{}")
    assert executor.find_missing([target, target], root) == [target]
    names = [step.name for step in executor.find_missing([target, third.parents["docs"]], root)]
    assert names == ["train-0", "source-0", "row-0", "row-1"]


@pytest.fixture
def machine() -> Capacity:
    return Capacity(lambda: {"CPU": 8.0, "GPU": 2.0, "memory": 16.0 * 2**30})


def test_waves_take_what_they_need_and_leave_the_rest(machine: Capacity) -> None:
    tables = machine.take(Resources(), 1, 5)
    assert tables
    assert tables.actors == 5
    assert machine.take(Resources(cpus=2), 2, 2) is None, "four CPUs for two workers at once, and three are left"
    training = machine.take(Resources(cpus=1, gpus=1), 2, 2)
    assert training
    assert machine.take(Resources(cpus=0.5, gpus=1), 1, 9) is None
    assert machine.take(Resources(cpus=1, memory_gb=17), 1, 9) is None
    rest = machine.take(Resources(), 1, 99)
    assert rest
    assert rest.actors == 1
    machine.shrink(tables, 2)
    assert machine.grow(rest, 3) == 3
    assert machine.grow(rest, 99) == 4
    machine.shrink(rest, 0)
    assert rest.actors == 1, "never below the least"
    for grant in (tables, training, rest):
        machine.give_back(grant)
    whole = machine.take(Resources(), 1, 99)
    assert whole
    assert whole.actors == 8


def test_equal_grants_are_given_back_one_by_one() -> None:
    capacity = Capacity(lambda: {"CPU": 4.0})
    first, second = (capacity.take(Resources(cpus=1), least=1, most=1) for _ in range(2))
    assert first
    assert second
    capacity.give_back(second)
    assert capacity.grow(first, most=9) == 4, "what is left belongs to the grant that was kept"
    assert capacity.take(Resources(cpus=1), least=1, most=1) is None
    capacity.give_back(first)
    assert capacity.take(Resources(cpus=4), least=1, most=1)


def test_a_wave_alone_starts_even_where_it_does_not_fit(machine: Capacity) -> None:
    huge = machine.take(Resources(cpus=100), 1, 9)
    assert huge
    assert huge.actors == 1
    assert machine.take(Resources(), 1, 1) is None


def test_cpus_are_kept_for_gpus_to_come() -> None:
    capacity = Capacity(lambda: {"CPU": 8.0, "GPU": 2.0}, cpus_per_gpu=1.5)
    index = capacity.take(Resources(), 1, 99)
    assert index
    assert index.actors == 5
    translate = capacity.take(Resources(cpus=1.5, gpus=1), 1, 99)
    assert translate
    assert translate.actors == 2
