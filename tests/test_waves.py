"""What a manifest says of the work, and what progress shows of steps in many threads; no Ray."""

import logging
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import pytest

import works
from cluster.artifact import Part
from cluster.errors import LeaseLostError
from cluster.executor import _Run, run
from cluster.lease import LEASES, Holder, Lease, lease_place, newest
from cluster.progress import Progress
from cluster.receipt import Receipt
from cluster.software import describe_software
from cluster.step import Step
from cluster.storage import Place
from cluster.waves import MANIFEST, Wave, describe
from pipelines.tables import DOCS


def receipt(unit: int, seconds: float, software: dict[str, str]) -> Receipt:
    return Receipt(unit=unit, parts=(Part(file=f"{unit}", rows=5),), seconds=seconds, software=software)


def test_manifest_holds_the_work_time_and_each_set_of_software() -> None:
    step = Step("numbers", works.Count, works.Numbers(parts=3), table=DOCS)
    old, new = {"ray": "2.59.0", "python": "3.11"}, {"python": "3.11", "ray": "2.60.0"}
    manifest = describe(step, [receipt(0, 100.5, old), receipt(1, 20, new), receipt(2, 3, dict(new))], None, None)
    assert manifest.seconds == 123.5
    assert manifest.software == (old, new)
    alone = describe(Step("nap", works.nap, works.Nap(number=1, log="")), [], {"a": 1}, 7.0)
    assert (alone.seconds, alone.software) == (7.0, (describe_software(),))


def test_two_sets_of_software_are_pointed_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A table of which all units were done, by two versions, before the run that commits it."""
    root = Place.of(tmp_path)
    step = Step("numbers", works.Count, works.Numbers(parts=1), table=DOCS)
    upper = Step("upper", works.Upper, works.Shout(log=""), {"docs": step}, DOCS, ("docs",))
    source = describe(step, [receipt(0, 1, {}), receipt(1, 1, {})], None, None)
    (root / step.id / MANIFEST).write(source.model_dump_json().encode())
    for unit, ray in enumerate(["2.59.0", "2.60.0"]):
        done = receipt(unit, 1, {"ray": ray, "torch": "2.13"})
        (root / upper.id / "receipts" / f"{unit:05d}.json").write(done.model_dump_json().encode())
    (artifact,) = run([upper], root, Progress())
    assert artifact.rows == 10
    assert f"{upper.id} was made with ray 2.59.0 and 2.60.0" in caplog.text
    assert "torch" not in caplog.text
    assert [place.name for place in (root / upper.id).list()] == [MANIFEST]


def test_manifest_that_is_there_is_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another driver completes the artifact in the moment before this one does."""
    root, log = Place.of(tmp_path / "root"), tmp_path / "log"
    (step,) = works.naps(str(log), 1, 0)
    theirs = describe(step, [], {"number": 99}, 1.0).model_dump_json().encode()
    create = Place.create

    def create_late(place: Place, data: bytes) -> bool:
        if place.name == MANIFEST:
            assert create(place, theirs)
        return create(place, data)

    monkeypatch.setattr(Place, "create", create_late)
    (artifact,) = run([step], root, Progress())
    assert artifact.manifest.facts == {"number": 99}
    assert (root / step.id / MANIFEST).read() == theirs
    assert not (root / step.id / LEASES).exists()


def test_directory_work_whose_lease_is_lost_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BABELRAY_LEASE_S", "1")
    root, log = Place.of(tmp_path / "root"), tmp_path / "log"
    (step,) = works.naps(str(log), 1, 4)
    other = Holder.of_this_process().model_copy(update={"host": "node-7", "process": ""})

    def take_over() -> None:
        while not log.exists():
            pass
        assert lease_place(root / step.id, 2).create(other.model_dump_json().encode())

    thread = threading.Thread(target=take_over)
    thread.start()
    with pytest.raises(LeaseLostError, match=r"lease of nap-0@\w+ is lost; it is now made by node-7 \(pid"):
        run([step], root, Progress())
    thread.join()
    assert not (root / step.id / MANIFEST).exists()
    assert newest(root / step.id) == (2, other)


def test_lease_that_is_lost_to_a_run_that_is_complete_says_so(tmp_path: Path) -> None:
    """The other run has written the manifest and removed the leases."""
    root = Place.of(tmp_path)
    (step,) = works.naps(str(tmp_path / "log"), 1, 0)
    run_of_step = _Run([step], root, Progress(), {})
    grant = run_of_step.around.capacity.take(step.resources, 1, 1)
    assert grant
    wave = Wave([step], grant, run_of_step.around)
    lease = run_of_step.around.leases.take(root / step.id)
    assert isinstance(lease, Lease)
    lease.is_lost = True
    wave.leases[step.id] = lease
    run_of_step.running[wave] = threading.current_thread()
    (root / step.id / LEASES).delete()
    with pytest.raises(LeaseLostError, match="is lost; it is now complete, made by another run"):
        run_of_step._check_leases()
    run_of_step.around.leases.close()


def test_software_is_what_is_installed() -> None:
    software = describe_software()
    for name, distribution in [("ctranslate2", "ctranslate2"), ("faiss", "faiss-cpu"), ("tokenizers", "tokenizers")]:
        assert software[name] == version(distribution)
    assert {"python", "babelray", "ray", "torch", "sentencepiece", "ir-measures"} <= set(software)
    here = Path(works.__file__).parent
    head = subprocess.run(["git", "-C", here, "rev-parse", "HEAD"], capture_output=True, text=True)
    if head.returncode == 0:
        assert software["commit"].rstrip("+") == head.stdout.strip()


def test_progress_counts_right_from_many_threads(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    progress = Progress()
    names = [f"step-{n}" for n in range(40)]
    with caplog.at_level(logging.INFO), progress.plan(names):

        def work(name: str) -> None:
            progress.start(name, 5000, 0, Place.of(tmp_path))
            for _ in range(500):
                progress.advance(name, 5, 1)
                progress.note(name, "going")

        with ThreadPoolExecutor(20) as threads:
            list(threads.map(work, names))
        assert not progress.waiting
    assert all((line.done, line.rejects) == (2500, 500) for line in progress.lines.values())
