"""What is given to add and delete: files of documents, what is wrong with them, and that nothing changes then."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from cluster.errors import RecipeError, StepError
from cluster.storage import Place
from pipelines.indexes.exact import Exact
from pipelines.indexes.faiss_index import Faiss
from pipelines.indexes.plaid import Plaid
from pipelines.segments.documents import read_documents, read_ids
from pipelines.segments.growing import GrowingIndex
from pipelines.segments.lists import live_place, newest_list
from pipelines.tables import VECTORS
from tests.growing import DIM, encode_rows, encode_text, make_growing, make_texts, read_texts, write_parts

LANGS = ["de", "en"]


def texts_of(parts: dict[str, list[Place]]) -> dict[str, list[tuple[str, str, str]]]:
    rows = {
        lang: [row for part in places for row in pa.parquet.read_table(part.path).to_pylist()]
        for lang, places in parts.items()
    }
    return {lang: [(row["doc_id"], row["title"], row["text"]) for row in some] for lang, some in rows.items()}


def test_documents_of_json_lines_and_tables(tmp_path: Path) -> None:
    import pyarrow.parquet  # noqa: F401

    (tmp_path / "a.jsonl").write_text(
        '{"doc_id": "1", "title": "T", "text": "one", "lang": "deu"}\n{"id": 2, "text": "two"}\n', "utf-8"
    )
    (tmp_path / "b.tsv").write_text("1\tone\n3\ttitle\tthree\n", "utf-8")
    files = [str(tmp_path / name) for name in ("a.jsonl", "b.tsv")]
    assert texts_of(read_documents(files, "en", LANGS, tmp_path / "parts")) == {
        "de": [("1", "T", "one")],
        "en": [("2", "", "two"), ("1", "", "one"), ("3", "title", "three")],
    }


@pytest.mark.parametrize(
    ("name", "content", "lang", "said"),
    [
        ("a.jsonl", '{"id": "1", "text": "x"}\n{"id": "1", "text": "y"}', "en", r"a\.jsonl:2: the id '1' occurs twice"),
        ("a.jsonl", '{"id": "1", "text": " "}', "en", r"a\.jsonl:1: empty text"),
        ("a.jsonl", '{"id": "1"', "en", r"a\.jsonl:1: malformed line"),
        ("a.jsonl", '{"id": "1", "text": "x", "lang": "fr"}', "", r"index's languages, de, en; got 'fr'"),
        ("a.jsonl", '{"id": "1", "text": "x"}', "", r"none is given: name one with --lang"),
        ("a.tsv", "1\n2\n3\n4\n5\n6\n7\n", "en", r"expected doc_id<TAB>text[\s\S]*… and 2 more\nnothing was added"),
        ("a.csv", "1,x", "en", r"expected a name that ends in"),
        ("a.tsv", "", "en", r"no document in"),
    ],
)
def test_a_file_that_is_not_right_is_refused_whole(
    name: str, content: str, lang: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content, "utf-8")
    with pytest.raises(RecipeError, match=said):
        read_documents([str(tmp_path / name)], lang, LANGS, tmp_path / "parts")


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="expected a file at"):
        read_documents([str(tmp_path / "no.jsonl")], "en", LANGS, tmp_path / "parts")
    with pytest.raises(RecipeError, match="expected a file at"):
        read_ids(str(tmp_path / "no.txt"))
    (tmp_path / "ids.txt").write_text("a\n\n b \nc")
    assert read_ids(str(tmp_path / "ids.txt")) == ["a", "b", "c"]


@pytest.fixture
def growing(tmp_path: Path) -> GrowingIndex:
    return make_growing(tmp_path, Plaid(centroids=32), {"en": make_texts(40)})


def encode_wide(rows: pa.Table) -> pa.Table:
    return encode_rows(rows, dim=2 * DIM)


def encode_long(rows: pa.Table) -> pa.Table:
    made = [{"id": i, "tokens": [2], "vectors": (2 * encode_text("a b")).tobytes()} for i in rows["doc_id"].to_pylist()]
    return VECTORS.of(made)


@pytest.mark.parametrize(("encode", "said"), [(encode_wide, "width 16, .* got 32"), (encode_long, "norms from 2.0")])
@pytest.mark.parametrize("kind", ["plaid", "exact"])
def test_vectors_of_another_encoder_change_nothing(kind: str, encode: object, said: str, tmp_path: Path) -> None:
    growing = make_growing(tmp_path, Plaid(centroids=32) if kind == "plaid" else Exact(), {"en": make_texts(40)})
    other = replace(growing, open_encoders=partial(dict, en=encode))
    if kind == "exact" and encode is encode_long:  # exact search knows no norm
        assert other.add(write_parts(tmp_path, {"n": "x"})).added == 1
        return
    with pytest.raises(StepError, match=said):
        other.add(write_parts(tmp_path, {"n": "x"}))
    assert not live_place(growing.index).exists()


def test_what_cannot_be_encoded_stays_as_it_was(growing: GrowingIndex, tmp_path: Path) -> None:
    before = read_texts(growing.snapshot())
    change = growing.add(write_parts(tmp_path, {"d0": "...", "n0": "...", "n1": "w1 w2"}))
    assert change.left_out == {"the encoder made no vector": ["en:d0", "en:n0"]}
    assert (change.added, change.replaced) == (1, 0)
    assert read_texts(growing.snapshot()) == before | {"n1": "w1 w2"}
    change = growing.add(write_parts(tmp_path, {"d0": "..."}))
    assert (change.number, change.added) == (1, 0)


def test_only_what_is_new_or_has_changed_is_encoded(growing: GrowingIndex, tmp_path: Path) -> None:
    encoded: list[str] = []

    def encode(rows: pa.Table) -> pa.Table:
        encoded.extend(rows["doc_id"].to_pylist())
        return encode_rows(rows)

    watched = replace(growing, open_encoders=partial(dict, en=encode))
    texts = make_texts(40)
    reported: list[tuple[int, int]] = []
    parts = write_parts(tmp_path, texts | {"d3": "w1 w2", "n": "w3"})
    change = watched.add(parts, lambda done, of: reported.append((done, of)))
    assert encoded == ["d3", "n"]
    assert (change.added, change.replaced, change.unchanged) == (1, 1, 39)
    assert reported == [(2, 2)]
    watched.add(parts)
    watched.compact()
    watched.add(parts)
    watched.add(write_parts(tmp_path, {"d3": texts["d3"]}))  # back to its first text
    assert encoded == ["d3", "n", "d3"]
    assert read_texts(watched.snapshot()) == texts | {"n": "w3"}


def test_absent_ids_are_told_and_change_nothing(growing: GrowingIndex, tmp_path: Path) -> None:
    change = growing.delete(["x", "y", "x"])
    assert (change.number, change.absent, change.deleted) == (0, ["x", "y"], 0)
    growing.add(write_parts(tmp_path, {"n": "w1"}))
    assert growing.delete(["n"]).deleted == 1
    assert growing.delete(["n"]).absent == ["n"]
    assert growing.add(write_parts(tmp_path, {"n": "w1"})).added == 1  # it may come back


def test_a_language_that_the_index_lacks(growing: GrowingIndex, tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"the index holds \['en'\], not 'fr'"):
        growing.add(write_parts(tmp_path, {"n": "w1"}, "fr"))
    assert not live_place(growing.index).exists()


@pytest.mark.parametrize("index", [Plaid(centroids=32), Faiss(structure="ivf", cells=8)], ids=["plaid", "ivf"])
def test_drift_is_measured_against_the_first_documents(index: object, tmp_path: Path) -> None:
    one_word = {name: text.split()[0] for name, text in make_texts(60).items()}
    growing = make_growing(tmp_path, index, {"en": one_word})
    near = growing.add(write_parts(tmp_path, {f"n{i}": text for i, text in enumerate(one_word.values())})).cosines["en"]
    far = growing.add(write_parts(tmp_path, {f"f{i}": f"unheard{i}" for i in range(40)})).cosines["en"]
    assert near["first"] == far["first"]
    assert abs(near["new"] - near["first"]) < 0.05
    assert far["new"] < far["first"] - 0.1


def test_a_language_that_is_named_twice_counts_a_deletion_once(growing: GrowingIndex) -> None:
    before = newest_list(growing.index).count()
    change = growing.delete(["d1"], ["en", "en"])
    assert change.deleted == 1
    assert newest_list(growing.index).count() == {"en": before["en"] - 1}
