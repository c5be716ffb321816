"""A toy to train on: names in two languages, whose words share nothing, and questions about them."""

from pathlib import Path

import numpy as np
import torch

from artifacts import directory_artifact, table_artifact
from cluster.storage import Place
from pipelines.students import Corpus, LateInteraction
from pipelines.students.scratch import Scratch
from pipelines.tables import DOCS, QRELS, QUERIES, RANKINGS
from pipelines.training.config import TrainConfig, TrainingRun, TrainResources, Validation
from pipelines.training.loop import Loop
from pipelines.training.losses import KullbackLeibler
from pipelines.training.objectives import build_objective
from pipelines.training.objectives.texts import score_cuts
from pipelines.training.snapshot import Snapshot
from pipelines.training.start import BuildStudent, StartConfig
from pipelines.training.workers import Workers

NAMES = ["oslo", "lima", "cairo", "tokio", "paris", "delhi", "quito", "sofia", "riga", "minsk", "accra", "dakar"]
TRAIN_FORMS = ["where is {}", "tell me of {}", "{} please"]
STUDENT = LateInteraction(
    base=Scratch(vocabulary=120, hidden=32, layers=1, heads=2, positions=32, dropout=0.1), dim=16, query_length=10,
    doc_length=24,
)  # fmt: skip
CONFIG = TrainConfig(
    student=STUDENT, steps=100, batch=8, ways=8, pool=8, lr=5e-3, validation=Validation(every=25), checkpoint_every=30,
    loss=KullbackLeibler(temperature=0.5), resources=TrainResources(threads=1),
)  # fmt: skip


def foreign(name):
    return name[::-1].translate(str.maketrans("abcdefghijklmnopqrstuvwxyz", "βγδεζηθικλμνξοπρστυφχψωабв"))


def make_inputs(root: Path):
    """The inputs of the step *train*, but for ``start``."""
    docs = {
        "en": [f"the city of {name} lies far" for name in NAMES],
        "xx": [f"ж {foreign(name)} ш щ" for name in NAMES],
    }
    random = np.random.default_rng(0)
    rankings, queries = [], []
    for form_number, form in enumerate(TRAIN_FORMS):
        for n, name in enumerate(NAMES):
            query_id = f"t{form_number}-{n}"
            queries.append({"query_id": query_id, "lang": "en", "text": form.format(name)})
            others = [f"d{k}" for k in random.permutation(len(NAMES)) if k != n][:7]
            rankings.append({"query_id": query_id, "doc_ids": [f"d{n}", *others], "scores": [8.0] + [0.0] * 7})
    dev = [{"query_id": f"v{n}", "lang": "en", "text": f"show {name}"} for n, name in enumerate(NAMES)]
    qrels = [{"query_id": f"v{n}", "doc_id": f"d{n}", "relevance": 1} for n in range(len(NAMES))]
    tables = {
        lang: table_artifact(
            root / f"docs-{lang}@0",
            DOCS,
            [{"doc_id": f"d{n}", "lang": lang, "title": "", "text": text} for n, text in enumerate(texts)],
        )
        for lang, texts in docs.items()
    }
    main = {
        "queries": table_artifact(root / "queries@0", QUERIES, queries),
        "scores": table_artifact(root / "scores@0", RANKINGS, rankings),
        "docs": tables,
    }
    judged = {lang: table_artifact(root / f"dev-qrels-{lang}@0", QRELS, qrels) for lang in docs}
    queries_of_dev = table_artifact(root / "dev-queries@0", QUERIES, dev)
    return {"data": {"main": main}, "dev": {"queries": queries_of_dev, "qrels": judged, "docs": tables}}


def labelled(inputs, root: Path):
    """The same data set with labels instead of a teacher: the city that a question names is relevant."""
    main = inputs["data"]["main"]
    qrels = [
        {"query_id": f"t{form}-{n}", "doc_id": f"d{n}", "relevance": 1}
        for form in range(len(TRAIN_FORMS))
        for n in range(len(NAMES))
    ]
    labels = {"qrels": {"en": table_artifact(root / "qrels-en@0", QRELS, qrels)}, "rankings": main["scores"]}
    return {**inputs, "data": {"main": {"queries": main["queries"], "docs": main["docs"], **labels}}}


def make_start(inputs, root: Path, student=STUDENT, seed=CONFIG.seed):
    """The artifact of the step *start*, made in this process."""
    data = {"main": {role: inputs["data"]["main"][role] for role in ("queries", "docs")}}
    BuildStudent(StartConfig(student=student, seed=seed), data, Place.of(root / "start@0"))("student")
    return directory_artifact(root / "start@0")


def open_corpus(inputs):
    return Corpus.open(inputs["data"])


def make_loop(config, student, inputs, workers=None, **mixture):
    run = TrainingRun(train=config, **mixture)
    return Loop(config, student, build_objective(run, inputs["data"], student), workers or Workers())


def save_loop(loop, directory: Path | None):
    """Write a loop's student to ``directory/model`` and its state beside it; None where another worker writes."""
    snapshot = Snapshot() if directory else None
    loop.take(snapshot)
    if snapshot and directory:
        snapshot.write(directory)


def score_entries(student, entries, rows):
    """The student's scores of the entries' passages, float32 [N, W]."""
    ((_, scores_NW),) = score_cuts(student, entries, rows, ((None, 1.0),))
    return scores_NW


def make_apart(root: Path):
    """Eight labelled questions whose passages no other question has: else another library takes a relevant one for a
    negative. The first of four passages of each is relevant."""
    queries = [{"query_id": f"q{n}", "lang": "en", "text": f"where is {NAMES[n]}"} for n in range(8)]
    texts = [f"{form} {name}" for name in NAMES[:8] for form in ("here lies", "far from", "not the city", "no word of")]
    docs = [{"doc_id": f"p{n}", "lang": "en", "title": "", "text": text} for n, text in enumerate(texts)]
    qrels = [{"query_id": f"q{n}", "doc_id": f"p{4 * n}", "relevance": 1} for n in range(8)]
    rankings = [
        {"query_id": f"q{n}", "doc_ids": [f"p{4 * n + k}" for k in range(4)], "scores": [4.0, 3.0, 2.0, 1.0]}
        for n in range(8)
    ]
    data = {
        "queries": table_artifact(root / "apart-queries@0", QUERIES, queries),
        "docs": {"en": table_artifact(root / "apart-docs@0", DOCS, docs)},
        "qrels": {"en": table_artifact(root / "apart-qrels@0", QRELS, qrels)},
        "rankings": table_artifact(root / "apart-rankings@0", RANKINGS, rankings),
    }
    return {"data": {"main": data}}


def gradients_of(loop, number=0):
    """The loss of a batch, its share, and the gradient of all parameters."""
    loop.student.model.train()
    torch.manual_seed(7)
    share = loop.objective.share(number, loop.workers.rank, loop.workers.world)  # no thread goes on tokenising
    loss = loop.backward(share)
    found = torch.cat([p.grad.flatten() for p in loop.student.model.parameters()])
    loop.student.model.zero_grad()
    return loss, share, found


def assert_same_gradient(found, expected, rel):
    assert float((found - expected).norm() / expected.norm()) < rel


def oracle_of(student, loss, share, corpus):
    """The value of a loss of sentence-transformers and its gradient, of a share's queries, positives and negatives."""
    entries = [entry for group in share.groups for entry in group]
    columns = [[corpus.queries.text(e.query_id) for e in entries]]
    for way in range(len(entries[0].doc_ids)):
        columns.append([corpus.docs[e.langs[way]].text(e.doc_ids[way]) for e in entries])
    tasks = ["query", *["document"] * (len(columns) - 1)]
    features = [
        student.model.preprocess(texts, prompt=student.model.prompts[task] or None, task=task)
        for texts, task in zip(columns, tasks, strict=True)
    ]
    value = loss(features, torch.zeros(0))
    value.backward()
    parameters = list(student.model.parameters())
    found = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
    student.model.zero_grad()
    return float(value.detach()), found
