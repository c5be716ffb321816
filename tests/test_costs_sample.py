"""The sample of a calibration: which rows it has, and that the cut plan is the recipe's own."""

import pytest

from cluster.storage import Place
from collections_on_disk import write
from pipelines.costs.fit import TimedWork, read_curve
from pipelines.costs.sample import FEWEST, STEPS, find_sizes, sample_plan
from pipelines.verbs import load_plan

DOCS, QUESTIONS = 1000, 800


@pytest.fixture(scope="module")
def parallel(tmp_path_factory):
    """A plan over 1,000 documents in two languages and 800 questions, of which question i is about document 999 - i."""
    root = tmp_path_factory.mktemp("parallel")
    files = {
        f"collection.{lang}.tsv": "".join(f"d{i}\ttext {i} {lang}\n" for i in range(DOCS)) for lang in ("en", "de")
    }
    files["queries.en.tsv"] = "".join(f"q{i}\tquestion {i}\n" for i in range(QUESTIONS))
    files["qrels.tsv"] = "".join(f"q{i} 0 d{DOCS - 1 - i} 1\n" for i in range(QUESTIONS))
    files["splits/fold0.tsv"] = "".join(
        f"q{i}\t{'train' if i < 600 else 'dev' if i < 700 else 'test'}\n" for i in range(QUESTIONS)
    )
    files["groups.tsv"] = "".join(f"d{DOCS - 1 - i}\tg{i}\nq{i}\tg{i}\n" for i in range(QUESTIONS))
    sets = [f"source.path={write(root / 'data', files)}", f"root={root}/runs", 'languages.docs=["en", "de"]']
    return load_plan("xquad", sets)


def rows_of(step, **inputs):
    work = step.work(step.config, inputs)
    return [row for table, _ in work() for row in table.to_pylist()]


def test_the_share_of_the_training_questions_is_that_of_every_table(parallel) -> None:
    plan, root = parallel
    sample = sample_plan(plan, find_sizes(plan, root), 300)
    made = {step.id: sample.steps[step.id] for step in plan.steps}
    of_train = next(s for s in plan.steps if s.name == "queries-en" and s.config.split == "train")
    assert [row["query_id"] for row in rows_of(made[of_train.id])] == [f"q{i}" for i in range(300)]
    of_test = next(s for s in plan.steps if s.name == "queries-en" and s.config.split == "test")
    assert len(rows_of(made[of_test.id])) == FEWEST  # half of 100, but not fewer than these
    searched = next(s for s in plan.steps if s.name == "docs-de" and s.config.split == "all")
    found = {row["doc_id"] for row in rows_of(made[searched.id])}
    assert len(found) == DOCS / 2
    assert {f"d{DOCS - 1 - i}" for i in range(700, 700 + FEWEST)} <= found  # what the questions are about


def test_a_translation_has_the_ids_of_its_original(parallel) -> None:
    plan, root = parallel
    sample = sample_plan(plan, find_sizes(plan, root), 60)
    docs = [s for s in plan.steps if s.name in ("docs-en", "docs-de") and s.config.split == "train"]
    english, german = ([row["doc_id"] for row in rows_of(sample.steps[step.id])] for step in docs)
    assert english == german
    assert len(english) == FEWEST


def test_the_plan_is_cut_where_it_reads_and_where_it_trains_and_nowhere_else(parallel) -> None:
    plan, root = parallel
    sample = sample_plan(plan, find_sizes(plan, root), 60)
    for step in plan.steps:
        cut = sample.steps[step.id]
        assert (cut.name, cut.resources, cut.rows, cut.table) == (step.name, step.resources, step.rows, step.table)
        assert set(cut.parents) == set(step.parents)
        if step.name == "train":
            assert cut.config.train.steps == STEPS < step.config.train.steps
            assert cut.config.train.validation.every == STEPS // 2
            assert cut.config.train.student == step.config.train.student
        elif step.verb != "ingest":
            assert cut.config == step.config
    assert [sample.steps[target.id] for target in plan.targets] == list(sample.targets)


def test_a_directory_work_is_still_itself_and_says_what_its_units_took(tmp_path) -> None:
    from cluster.receipt import RECEIPTS, Receipt, write_receipt

    def build(config, inputs, out, fan_out):
        return {"found": fan_out("index", None, {}, [1, 2])}

    def fan_out(label, work, arguments, units):
        for unit, seconds in enumerate((1.5, 2.5)):
            write_receipt(Place.of(tmp_path) / RECEIPTS / label, Receipt(unit=unit, seconds=seconds))
        return [{}, {}]

    timed = TimedWork(build)
    assert timed.__name__ == "build"
    facts = timed(None, {}, Place.of(tmp_path), fan_out)
    assert facts == {"found": [{}, {}], "unit_seconds": 4.0, "pools": 1}


def test_steps_and_stops_of_a_curve(tmp_path) -> None:
    """Ten steps of 0.5 s; the first comes after 3 s, and the one after the stop at half after 2.5 s."""
    from cluster.artifact import Artifact

    ends = [3.0 + 0.5 * n + (2.0 if n > 4 else 0.0) for n in range(10)]
    lines = "".join(f"{n}\t0.1\t0.1\t{end:.1f}\n" for n, end in enumerate(ends, 1))
    (tmp_path / "losses.tsv").write_text("step\tloss\tlr\tseconds\n" + lines)
    assert read_curve(Artifact(Place.of(tmp_path))) == pytest.approx((0.5, 2.0))
