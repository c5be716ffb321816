"""The step *start* whose base is the student of another recipe: planned, then built from that recipe's training."""

from pathlib import Path

import numpy as np
import pytest

from artifacts import directory_artifact
from cluster.errors import StepError
from cluster.storage import Place
from pipelines.plan import plan
from pipelines.recipe import load
from pipelines.students import Dense
from pipelines.students.checkpoint import Checkpoint
from pipelines.training.start import StartConfig, build_start
from test_training import weights
from toy_pairs import STUDENT, make_pairs, open_pair_corpus

CONFIG = StartConfig(
    student=Dense(base=Checkpoint(recipe="first"), query_prefix="", doc_prefix="", query_length=24, doc_length=24)
)


def call_here(name, work, arguments, units):
    """A ``FanOut`` in this process."""
    return [work(**arguments)(unit) for unit in units]


def test_a_student_begins_with_the_weights_of_another_recipes_student(tmp_path: Path) -> None:
    student = STUDENT.build(open_pair_corpus(make_pairs(tmp_path / "pairs")), 0)
    student.save(tmp_path / "train@0" / "best")
    build_start(
        CONFIG,
        {"models": {"student.base": directory_artifact(tmp_path / "train@0")}},
        Place.of(tmp_path / "start@0"),
        call_here,
    )
    before, after = weights(tmp_path / "train@0" / "best"), weights(tmp_path / "start@0" / "start")
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[key], after[key]) for key in before)
    with pytest.raises(StepError, match=r"expected the training of recipe first as the input models\.student\.base"):
        build_start(CONFIG, {}, Place.of(tmp_path / "start@1"), call_here)


def test_a_plan_gives_the_step_the_training_of_the_recipe(tmp_path: Path) -> None:
    made = plan(load("maml-align-small", [f"data={tmp_path}", f"source.path={tmp_path}"]))
    assert made.training
    assert list(made.training.start.inputs["models"]) == ["student.base"]
