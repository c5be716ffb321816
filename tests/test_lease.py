"""Leases: one driver makes an artifact; who is dead loses it, who takes over is one, who lost it stops."""

import errno
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster.artifact import MANIFEST
from cluster.errors import LeaseLostError
from cluster.lease import Holder, Lease, Leases, identify_process, lease_place, newest
from cluster.storage import Place


@pytest.fixture(params=["disk", "s3"])
def artifact(request: pytest.FixtureRequest, tmp_path: Path, s3_root: str) -> Place:
    root = Place.of(tmp_path) if request.param == "disk" else Place.of(s3_root) / f"lease-{tmp_path.name}"
    return root / "docs-en@0123456789ab"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BABELRAY_LEASE_S", "1")


def taken(leases: Leases, artifact: Place) -> Lease:
    lease = leases.take(artifact)
    assert isinstance(lease, Lease), str(lease)
    return lease


def until(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def elsewhere(holder: Holder) -> Holder:
    """The same holder as a process of another machine would be, of which nothing is known but its file."""
    return holder.model_copy(update={"process": "", "host": "node-7"})


def test_second_driver_learns_who_has_it_and_goes_on_when_it_is_given_back(artifact: Place) -> None:
    first, second = Leases(), Leases()
    lease = taken(first, artifact)
    holder = second.take(artifact)
    assert isinstance(holder, Holder)
    assert (holder.pid, holder.token) == (os.getpid(), lease.holder.token)
    assert f"made by {holder.host} (pid {os.getpid()}, user {holder.user}) since " in str(holder)
    assert not second.is_free(artifact)
    first.give_back(lease)
    assert second.is_free(artifact)
    assert taken(second, artifact).number == 2
    second.close()
    assert taken(first, artifact).number == 3
    first.close()


def test_lease_that_is_kept_alive_does_not_run_out(artifact: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BABELRAY_LEASE_S", "2")  # a busy machine may hold a process up for a second
    first, second = Leases(), Leases()
    lease = taken(first, artifact)
    end = time.monotonic() + 5
    while time.monotonic() < end:
        assert not second.is_free(artifact)
        time.sleep(0.05)
    assert not lease.is_lost
    assert newest(artifact)[1].beats >= 5  # type: ignore[union-attr]
    first.close()


def test_leases_are_renewed_again_when_the_disk_has_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    leases, artifact = Leases(), Place.of(tmp_path / "docs-en@0123456789ab")
    taken(leases, artifact)

    def fill(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", fill)
        until(lambda: "cannot renew the lease" in caplog.text)
    _, before = newest(artifact)
    assert before is not None
    until(lambda: newest(artifact)[1].beats > before.beats)  # type: ignore[union-attr]
    leases.close()


def test_a_lease_that_was_written_again_is_as_long_as_before(artifact: Place) -> None:
    """What is read of a store is as long as the object was a moment before."""
    leases = Leases()
    lease = taken(leases, artifact)
    file = lease_place(artifact, lease.number)
    lengths = {len(file.read())}
    for beats in (9, 10, 123_456):
        lease.holder = lease.holder.model_copy(update={"beats": beats})
        leases._beat(lease)
        lengths.add(len(file.read()))
        assert newest(artifact)[1].beats > beats  # type: ignore[union-attr]
    leases.give_back(lease)
    lengths.add(len(file.read()))
    assert len(lengths) == 1
    leases.close()


def test_lease_without_beats_runs_out_by_the_waiters_own_clock(artifact: Place) -> None:
    dead = elsewhere(Holder.of_this_process())
    assert lease_place(artifact, 1).create(dead.model_dump_json().encode())
    leases = Leases()
    started = time.monotonic()
    assert leases.take(artifact) == dead
    until(lambda: leases.is_free(artifact))
    assert time.monotonic() - started >= 1
    assert taken(leases, artifact).number == 2
    leases.close()


def test_of_many_that_take_over_at_once_one_succeeds(tmp_path: Path) -> None:
    artifact = Place.of(tmp_path) / "docs"
    for number in range(1, 20):
        dead = elsewhere(Holder.of_this_process()).model_copy(update={"is_released": True})
        assert lease_place(artifact, number).create(dead.model_dump_json().encode())
        drivers = [Leases() for _ in range(8)]
        gate = threading.Barrier(8)

        def take(leases: Leases, gate: threading.Barrier = gate) -> Lease | Holder:
            gate.wait()
            return leases.take(artifact)

        with ThreadPoolExecutor(8) as threads:
            got = list(threads.map(take, drivers))
        (winner,) = [lease for lease in got if isinstance(lease, Lease)]
        assert winner.number == number + 1
        assert {holder.token for holder in got if isinstance(holder, Holder)} == {winner.holder.token}
        for leases in drivers:
            leases.close()
        (artifact / "lease" / f"{number + 1:05d}.json").delete()


def test_driver_whose_lease_was_taken_over_finds_out_and_must_not_write(artifact: Place) -> None:
    first = Leases()
    lease = taken(first, artifact)
    lease.fence.check()
    other = elsewhere(Holder.of_this_process())
    assert lease_place(artifact, 2).create(other.model_dump_json().encode())
    with pytest.raises(LeaseLostError, match="taken over"):
        lease.fence.check()
    until(lambda: lease.is_lost)
    first.give_back(lease)
    assert newest(artifact) == (2, other), "what is lost is not given back"


def test_complete_artifact_is_behind_a_fence(artifact: Place) -> None:
    leases = Leases()
    lease = taken(leases, artifact)
    (artifact / MANIFEST).write(b"{}")
    with pytest.raises(LeaseLostError, match="completed by another driver"):
        lease.fence.check()
    leases.drop(lease)
    assert [place.name for place in artifact.list()] == [MANIFEST] or not artifact.is_local
    assert newest(artifact) == (0, None)


def test_killed_holder_of_this_machine_is_noticed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BABELRAY_LEASE_S", "1000")
    artifact = Place.of(tmp_path) / "docs"
    code = (
        "import sys, time; from cluster.lease import Leases; from cluster.storage import Place; "
        "print(Leases().take(Place.of(sys.argv[1])).number, flush=True); time.sleep(100)"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", code, artifact.uri], env=env, stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"1\n"
    leases = Leases()
    holder = leases.take(artifact)
    assert isinstance(holder, Holder)
    assert holder.pid == process.pid
    process.kill()
    process.wait()
    assert taken(leases, artifact).number == 2
    leases.close()


def test_process_is_known_by_more_than_its_number() -> None:
    mine = identify_process(os.getpid())
    assert mine == identify_process(os.getpid()) != ""
    assert identify_process(2**22 + 1) == ""
    reused = Holder.of_this_process().model_copy(update={"process": mine + "1"})
    assert reused.is_gone
    assert not Holder.of_this_process().is_gone
