"""Pairs of sentences about cities, in three languages whose words share nothing, as files and as training inputs."""

import hashlib
from pathlib import Path

from artifacts import directory_artifact, table_artifact
from cluster.storage import Place
from pipelines.sources import Sts
from pipelines.students import Corpus, Dense
from pipelines.students.scratch import Scratch
from pipelines.tables import PAIRS
from pipelines.training.config import TrainConfig, TrainResources, Validation
from pipelines.training.losses import Cosine
from pipelines.training.start import BuildStudent, StartConfig
from toy import NAMES, foreign

LANGS = ("de", "en", "ru")
SIZES = {"train": 60, "dev": 24, "test": 30}
FORMS = ("{} is far away", "you can see {} from here", "nobody has been in {} yet")
STUDENT = Dense(
    base=Scratch(vocabulary=200, hidden=32, layers=1, heads=2, positions=32, dropout=0.1),
    query_prefix="", doc_prefix="", query_length=24, doc_length=24,
)  # fmt: skip
PLAIN = STUDENT.model_copy(update={"base": STUDENT.base.model_copy(update={"dropout": 0})})
CONFIG = TrainConfig(
    student=STUDENT, loss=Cosine(), steps=80, batch=8, lr=5e-3, validation=Validation(every=40), checkpoint_every=30,
    resources=TrainResources(threads=1),
)  # fmt: skip


def number(*parts):
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "little")


def sentence(city, form, lang):
    text = FORMS[form].format(NAMES[city])
    return {"en": text, "de": text[::-1], "ru": foreign(text)}[lang]


def pair(split, n):
    """Two cities, two forms and the score of pair ``n``: half of the pairs are about one city."""
    city, form, other_form = number(split, n) % 12, number(split, n, 1) % 3, number(split, n, 2) % 3
    other = city if n % 2 else number(split, n, 3) % 12
    score = 4.0 * (city == other) + 1.0 * (form == other_form)
    return (city, form), (other, other_form), score


def lines(split, lang):
    for n in range(SIZES[split]):
        left, right, score = pair(split, n)
        yield f"{sentence(*left, lang)}\t{sentence(*right, lang)}\t{score}"


def write_pairs(directory: Path, langs=LANGS) -> Path:
    """The files of the source ``sts``."""
    directory.mkdir(parents=True, exist_ok=True)
    for lang in langs:
        for split in SIZES:
            (directory / f"{lang}.{split}.tsv").write_text("\n".join(lines(split, lang)) + "\n", "utf-8")
    return directory


def make_pairs(root: Path, langs=LANGS):
    """The inputs of the step *train*, but for ``start``."""
    source = Sts(path=str(write_pairs(root / "files", langs)))

    def tables(split):
        rows = {lang: [entry.row for entry in source.pairs(lang, split)] for lang in langs}
        return {lang: table_artifact(root / f"{split}-{lang}@0", PAIRS, of[:20], of[20:]) for lang, of in rows.items()}

    return {"data": {"main": {"pairs": tables("train")}}, "dev": {"pairs": tables("dev")}}


def open_pair_corpus(inputs):
    return Corpus.open({"main": {"docs": inputs["data"]["main"]["pairs"]}})


def make_pair_start(inputs, root: Path, student=STUDENT):
    """The artifact of the step *start*, made in this process."""
    data = {"main": {"docs": inputs["data"]["main"]["pairs"]}}
    BuildStudent(StartConfig(student=student, seed=CONFIG.seed), data, Place.of(root / "start@0"))("student")
    return directory_artifact(root / "start@0")
