"""The verbs in this process, on recipes of which nothing or little has been run."""

import gzip
import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from artifacts import table_artifact
from cluster.errors import StepError
from cluster.storage import Place
from pipelines import verbs
from pipelines.formats import export_table
from pipelines.tables import RANKINGS
from pipelines.training.records import ProgressFile, Records
from test_recipe import parallel

SMALL = ["source.territories=12"]


def test_search_before_the_run_names_the_step_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"train@\w+ is not complete .*run the step that makes it"):
        verbs.search("atlas", "What money do people pay with in Iran?", 3, [], [*SMALL, f"root={tmp_path}"])


def test_status_tells_the_rows_of_an_ingest_that_goes_on(tmp_path: Path) -> None:
    sets = [*SMALL, f"root={tmp_path}"]
    before, *_ = [row for row in verbs.status("atlas", sets).data if row["step"].startswith("docs-en@")]
    assert (before["state"], before["rows"]) == ("to come", 0)
    (Place.of(tmp_path) / before["step"] / "progress.json").write(b'{"rows": 1200, "rejects": 3}')
    (after,) = [row for row in verbs.status("atlas", sets).data if row["step"] == before["step"]]
    assert (after["state"], after["rows"], after["rejects"]) == ("going on", 1200, 3)


def test_status_tells_the_steps_of_a_training_and_none_of_the_attempt_before(tmp_path: Path) -> None:
    sets = [*SMALL, f"root={tmp_path}"]
    (train,) = [row["step"] for row in verbs.status("atlas", sets).data if row["step"].startswith("train@")]

    def state() -> dict[str, object]:
        return next(row for row in verbs.status("atlas", sets).data if row["step"] == train)

    progress = ProgressFile(Place.of(tmp_path) / train)
    progress.say(Records(1200, done=28), now=True)
    assert (state()["state"], state()["steps"], state()["steps_in_all"]) == ("going on", 28, 1200)
    console = Console(file=StringIO(), width=120)
    console.print(verbs.status("atlas", sets).page)
    assert "28 of 1,200 steps" in console.file.getvalue()
    progress.say_start()
    assert state()["state"] == "going on"
    assert "steps" not in state()


def test_show_tells_no_keys(tmp_path: Path, s3_root: str) -> None:
    parallel(tmp_path)
    collection = Place.of(s3_root) / f"collection-{tmp_path.name}"
    collection.put(tmp_path)
    shown = verbs.show("xquad", "docs-en", [f"source.path={collection.uri}", f"root={collection.uri}"])
    assert shown.data[0]["config"]["source"]["path"] == collection.redacted
    assert "secret_key" not in json.dumps(shown.data)


def test_the_command_that_is_printed_holds_no_keys() -> None:
    printed = verbs._serve_command("atlas", ["root=s3://bucket/runs?secret_key=hidden", "train.steps=5"])
    assert "root=s3://bucket/runs" in printed
    assert "train.steps=5" in printed
    assert "hidden" not in printed


def test_an_export_goes_to_a_store_compressed(tmp_path: Path, s3_root: str) -> None:
    sets = [*SMALL, f"root={tmp_path}"]
    plan, root = verbs.load_plan("atlas", sets)
    (select,) = plan.find_steps("select")
    ranked = {"query_id": "q1", "doc_ids": ["b", "a"], "scores": [2.0, 1.5]}
    table_artifact((root / select.id).path, RANKINGS, [ranked], [{"query_id": "q2", "reject": "no words"}])
    file = Place.of(s3_root) / f"run-{tmp_path.name}.trec.gz"
    written = export_table("atlas", select.id, file.uri, "", sets)
    assert gzip.decompress(file.read()).decode() == "q1 Q0 b 1 2.0 select\nq1 Q0 a 2 1.5 select\n"
    assert written.data["lines"] == 2
    assert "secret_key" not in f"{written.data}{written.page}"
