"""The source of translated sentences: one id for a sentence in all languages; no split reads another's file."""

import pytest
from pydantic import ValidationError

from cluster.errors import RecipeError
from collections_on_disk import rejects, rows, write
from pipelines.ingest import ABSENT, IngestConfig
from pipelines.sources import Bitext
from pipelines.sources.files import AbsentFileError

FILES = {
    "web/en-de.tsv": "One.\tEins.\nTwo.\tZwei.\nTwo.\tZwo.\n",
    "web/en-fa.tsv": "One.\tیک.\nThree.\tسه.\n",
    "web/en-de.test.tsv": "Nine.\tNeun.\n",
    "web/en-de.dev.tsv": "Eight.\tAcht.\n",
    "news/en-de.tsv.gz": "Four.\tVier.\nbroken line\nFive.\t \n",
}
NAMES = ("web/en-{lang}.tsv", "news/en-{lang}.tsv")


@pytest.fixture
def source(tmp_path):
    return Bitext(path=write(tmp_path, FILES), names=NAMES)


def texts(source, lang, split="train"):
    return {row["doc_id"]: row["text"] for row in rows(source.docs(lang, split))}


def test_a_sentence_has_one_id_in_all_files_and_languages(source):
    english, german, persian = (texts(source, lang) for lang in ("en", "de", "fa"))
    assert sorted(english.values()) == ["Five.", "Four.", "One.", "Three.", "Two."]
    assert {english[key]: text for key, text in persian.items()} == {"One.": "یک.", "Three.": "سه."}
    assert {english[key]: text for key, text in german.items()} == {"One.": "Eins.", "Two.": "Zwo.", "Four.": "Vier."}
    assert len(rows(source.docs("en", "train"))) == 5  # "One." and "Two." are in several lines


def test_questions_are_the_sentences_and_their_answer_has_their_id(source):
    asked = rows(source.queries("de", "train"))
    assert [row["text"] for row in asked] == ["Eins.", "Zwei.", "Zwo.", "Vier."]
    judged = rows(source.qrels("fa", "train"))
    assert judged == [{"query_id": key, "doc_id": key, "relevance": 1} for key in texts(source, "fa")]
    assert set(source.ids("docs")) == set(texts(source, "en", "all"))


def test_training_reads_no_sentence_of_another_split(source):
    assert list(texts(source, "de", "test").values()) == ["Neun."]
    assert list(texts(source, "en", "dev").values()) == ["Eight."]
    train = {*texts(source, "en").values(), *texts(source, "de").values()}
    assert not train & {"Nine.", "Neun.", "Eight.", "Acht."}
    assert len(texts(source, "de", "all")) == 5
    assert [file.name for file in source.files("docs", "en", "train")] == [
        "web/en-de.tsv",
        "web/en-fa.tsv",
        "news/en-de.tsv.gz",
    ]


def test_lines_that_are_no_pair_are_told(source):
    assert rejects(source.docs("de", "train")) == [
        ("news/en-de.tsv.gz:2", "malformed line"),
        ("news/en-de.tsv.gz:3", "empty text"),
    ]


def test_what_is_absent_is_told_and_a_plan_can_still_be_looked_at(source):
    with pytest.raises(AbsentFileError, match=r"expected a file of ru for split 'train' .*web/en-\{lang\}.tsv"):
        source.files("docs", "ru", "train")
    with pytest.raises(RecipeError, match="no split 'half'"):
        source.files("docs", "de", "half")
    assert IngestConfig.of(source, "ru", "train", 10, "docs").content.startswith(ABSENT)


def test_another_sentence_is_another_content_and_another_place_is_not(tmp_path, source):
    moved = Bitext(path=write(tmp_path / "moved", FILES), names=NAMES)
    changed = Bitext(path=write(tmp_path / "b", FILES | {"web/en-fa.tsv": "One.\tدو.\n"}), names=NAMES)
    contents = [IngestConfig.of(s, "en", "train", 10, "docs").content for s in (source, moved, changed)]
    assert contents[0] == contents[1] != contents[2]


@pytest.mark.parametrize("name", ["en-de.tsv", "{lang}/en-{lang}.tsv", "en-{lang}.txt"])
def test_a_name_needs_a_place_for_the_language(name):
    with pytest.raises(ValidationError, match=r"expected a path with \{lang\} once"):
        Bitext(path="x", names=(name,))
