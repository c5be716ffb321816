"""Pruning a root: what no recipe needs goes, what somebody makes stays."""

import os
from pathlib import Path

import pytest

from cluster.artifact import MANIFEST
from cluster.lease import Holder, Lease, Leases, lease_place
from cluster.prune import is_artifact_name, prune
from cluster.storage import Place


@pytest.fixture(params=["disk", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path, s3_root: str) -> Place:
    return Place.of(tmp_path) if request.param == "disk" else Place.of(s3_root) / f"prune-{tmp_path.name}"


def artifact(root: Place, name: str, size: int, complete: bool = True) -> Place:
    (root / name / "deep" / "data").write(bytes(size))
    if complete:
        (root / name / MANIFEST).write(b"{}")
    return root / name


def names(root: Place) -> list[str]:
    return [place.name for place in root.list() if place.files()]


def test_unneeded_artifacts_go_and_are_named(root: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BABELRAY_LEASE_S", "0.5")
    artifact(root, "docs@000000000001", 10)
    artifact(root, "docs@000000000002", 200)
    artifact(root, "half@000000000003", 3000, complete=False)
    artifact(root, "made@000000000004", 40, complete=False)
    dead = Holder.of_this_process().model_copy(update={"process": "", "host": "node-7"})
    lease_place(artifact(root, "dead@000000000005", 50, complete=False), 1).create(dead.model_dump_json().encode())
    (root / "notes" / "mine.txt").write(b"not an artifact")
    maker = Leases()
    assert isinstance(maker.take(root / "made@000000000004"), Lease)
    before = names(root)
    needed = {"docs@000000000001"}
    planned = prune(root, needed, dry=True)
    assert names(root) == before
    found = prune(root, needed, dry=False)
    assert [(p.name, p.is_complete) for p in found] == [
        ("half@000000000003", False),
        ("dead@000000000005", False),
        ("docs@000000000002", True),
    ]
    assert found == planned
    assert found[0].size == 3000
    assert names(root) == ["docs@000000000001", "made@000000000004", "notes"]
    assert names(root / "docs@000000000001") == ["deep", MANIFEST]
    maker.close()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("docs-en@0123456789ab", True), ("docs", False), ("@0123456789ab", False), ("docs@0123456789aX", False),
     ("docs@0123", False), ("a@b@0123456789ab", True)],
)  # fmt: skip
def test_only_artifacts_are_named_so(name: str, expected: bool) -> None:
    assert is_artifact_name(name) == expected
    assert os.sep not in name
