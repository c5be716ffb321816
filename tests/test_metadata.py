"""Metadata: kept as a recipe says, absent where it says nothing, searched by in an index, its segments, over HTTP."""

import asyncio
import json
import pickle
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from cluster.artifact import Artifact
from cluster.component import fingerprint
from cluster.errors import RecipeError
from collections_on_disk import write
from pipelines.__main__ import app
from pipelines.filters.fields import METADATA, find_types
from pipelines.filters.predicates import write_json
from pipelines.filters.subset import Subset
from pipelines.filters.text import parse
from pipelines.indexes.base import SearchOptions
from pipelines.indexes.bm25 import Bm25
from pipelines.ingest import IngestConfig, IngestDocs
from pipelines.new import write_recipe
from pipelines.plan import plan
from pipelines.recipe import load
from pipelines.searcher import Searcher
from pipelines.segments.documents import read_documents
from pipelines.segments.growing import GrowingIndex
from pipelines.segments.snapshot import Snapshot
from pipelines.sources import Beir, Jsonl
from pipelines.sources.metadata import drop_fields
from pipelines.tables import DOCS
from serving.messages import Limits, SearchRequest
from serving.opened import OpenShards
from serving.served import Layout, Served
from serving_here import ServerHere
from tests.artifacts import directory_artifact, table_artifact
from tests.shards import build

TYPES = {"year": "number", "section": "string", "open": "boolean", "tags": "strings"}


def lines(*records: dict[str, Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def ingest(source: Any, lang: str = "en") -> tuple[list[pa.Table], list[Any]]:
    config = IngestConfig.of(source, lang, "all", 2, "docs")
    made = list(IngestDocs(config, {})())
    return [DOCS.conform(rows) for rows, _ in made], [reject for _, rejects in made for reject in rejects]


def test_fields_are_read_from_the_record_and_from_its_metadata(tmp_path: Path) -> None:
    corpus = lines(
        {"_id": "1", "text": "x", "metadata": {"year": 2020, "tags": ["a"], "other": 1}},
        {"_id": "2", "text": "y", "year": 2021.5, "open": True, "metadata": {"section": "ü"}},
        {"_id": "3", "text": "z", "metadata": None, "year": None},
    )
    parts, rejects = ingest(Beir(path=str(write(tmp_path, {"corpus.jsonl": corpus})), metadata=TYPES))
    assert not rejects
    assert [part.schema for part in parts] == [parts[0].schema] * 2
    assert find_types(parts[0].schema) == TYPES
    assert [row[METADATA] for part in parts for row in part.to_pylist()] == [
        {"year": 2020.0, "section": None, "open": None, "tags": ["a"]},
        {"year": 2021.5, "section": "ü", "open": True, "tags": None},
        {"year": None, "section": None, "open": None, "tags": None},
    ]


@pytest.mark.parametrize(
    "wrong",
    [{"year": "2020"}, {"year": True}, {"year": 10**400}, {"section": 1}, {"section": "\ud800"}, {"open": 1},
     {"tags": "a"}, {"tags": ["a", 1]}, {"tags": {"a": 1}}],
)  # fmt: skip
def test_a_field_of_another_type_rejects_its_record(wrong: dict[str, Any], tmp_path: Path) -> None:
    docs = lines({"doc_id": "1", "text": "x", **wrong}, {"doc_id": "2", "text": "y"})
    path = write(tmp_path, {"docs.jsonl": docs})
    parts, (reject,) = ingest(Jsonl(docs_path=f"{path}/docs.jsonl", metadata=TYPES))
    assert (reject.reason, reject.where) == ("metadata of another type", "docs.jsonl:1")
    assert [row["doc_id"] for row in parts[0].to_pylist()] == ["2"]


def test_without_fields_everything_is_as_it_was(tmp_path: Path) -> None:
    path = write(tmp_path, {"corpus.jsonl": lines({"_id": "1", "text": "x", "metadata": {"year": 1}})})
    plain = Beir(path=str(path))
    ((part,), _) = ingest(plain)
    assert part.schema == DOCS.schema
    config = IngestConfig.of(plain, "en", "all", 2, "docs")
    assert "metadata" not in json.dumps(config.source.model_dump(exclude_defaults=True))
    kept = IngestConfig.of(plain.model_copy(update={"metadata": {"year": "number"}}), "en", "all", 2, "docs")
    assert fingerprint(kept) != fingerprint(config)


# ---- search

FIELDS: dict[str, Any] = {"year": "number", "section": "string", "tags": "strings"}


def make_page(i: int) -> dict[str, Any]:
    fields = {"year": 2000 + i % 20, "section": "abc"[i % 3], "tags": [f"t{i % 4}", "all"]}
    return {"text": f"w{i % 7} w{i % 5} w{i % 3} common", **fields}


PAGES = {f"d{i}": make_page(i) for i in range(60)}


def docs_with_fields(directory: Path, pages: dict[str, Any]) -> Artifact:
    """DOCS with metadata, in two parts, through the source."""
    path = write(directory.parent / "source", {"docs.jsonl": lines(*({"doc_id": n, **p} for n, p in pages.items()))})
    source = Jsonl(docs_path=f"{path}/docs.jsonl", metadata=FIELDS)
    config = IngestConfig.of(source, "en", "all", 40, "docs")
    made = [rows for rows, _ in IngestDocs(config, {})()]
    assert [METADATA in rows.column_names for rows in made] == [True, True]
    return table_artifact(directory, DOCS, *made)


@pytest.fixture(scope="module")
def growing(tmp_path_factory: pytest.TempPathFactory) -> GrowingIndex:
    """An index of words with 60 documents, of which some were replaced, deleted and added."""
    root = tmp_path_factory.mktemp("growing")
    docs = {"en": docs_with_fields(root / "docs-en@0", PAGES)}
    index = build(root / "index@0", Bm25(), {"docs": docs}, 25)
    return GrowingIndex(index, docs)


def expect(pages: dict[str, Any], holds: Any) -> set[str]:
    return {name for name, page in pages.items() if holds(name, page)}


def find_all(snapshot: Snapshot, subset: Subset) -> set[str]:
    group = snapshot.open("en")
    within = snapshot.select_from(group, snapshot.open_docs("en")).select(subset)
    (found,) = group.search(["common"], SearchOptions(k=1000), within)
    return {name for name, _ in found}


WHERE = 'year >= 2010 and section in ("a", "c")'
IDS = ("d3", "d12", "d33", "nothing")


def holds(name: str, page: dict[str, Any]) -> bool:
    return page.get("year", 0) >= 2010 and page["section"] in ("a", "c")


def test_a_subset_through_segments_and_tombstones(growing: GrowingIndex, tmp_path: Path) -> None:
    pages = dict(PAGES)

    def check(snapshot: Snapshot) -> None:
        assert find_all(snapshot, Subset(None, parse(WHERE))) == expect(pages, holds)
        assert find_all(snapshot, Subset(IDS)) == set(IDS) & set(pages)
        tagged = find_all(snapshot, Subset(None, parse("tags in ('t1', 't9')")))
        assert tagged == expect(pages, lambda _, p: "t1" in p.get("tags", []))
        both = find_all(snapshot, Subset(IDS, parse(WHERE)))
        assert both == expect(pages, holds) & set(IDS)
        assert find_all(snapshot, Subset(None, parse("not year exists"))) == expect(pages, lambda _, p: "year" not in p)
        assert find_all(snapshot, Subset(())) == set()

    check(growing.snapshot())
    changed = {
        "d12": {**PAGES["d12"], "year": 1990},  # the text is the same: the metadata alone are others
        "d60": {"text": "common new", "year": 2015, "section": "a"},
        "d61": {"text": "common old", "section": "a"},
    }
    file = tmp_path / "more.jsonl"
    file.write_text(lines(*({"doc_id": name, **page} for name, page in {**changed, "d13": PAGES["d13"]}.items())))
    snapshot = growing.snapshot()
    assert snapshot.fields == FIELDS
    parts = read_documents([str(file)], "en", ["en"], tmp_path / "parts", snapshot.fields)
    change = growing.add(parts)
    assert (change.added, change.replaced, change.unchanged) == (2, 1, 1)
    pages |= changed
    check(growing.snapshot())
    growing.delete(["d33", "d60"])
    del pages["d33"], pages["d60"]
    check(growing.snapshot())
    growing.compact()
    check(growing.snapshot())


def test_added_documents_of_another_type_change_nothing(growing: GrowingIndex, tmp_path: Path) -> None:
    file = tmp_path / "more.jsonl"
    file.write_text(lines({"doc_id": "x", "text": "x", "year": "new"}))
    with pytest.raises(RecipeError, match=r"more\.jsonl:1: metadata of another type: x"):
        read_documents([str(file)], "en", ["en"], tmp_path / "parts", growing.snapshot().fields)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    root = tmp_path_factory.mktemp("served")
    docs = {"en": docs_with_fields(root / "docs-en@0", PAGES)}
    build(root / "index@0", Bm25(), {"docs": docs}, 25)
    return Served("tiny", "bm25", directory_artifact(root / "index@0"), docs)


def test_the_searcher_of_the_command_line(served: Served) -> None:
    for snapshot in (None, served.snapshot):
        searcher = Searcher(served.index, served.docs, None, snapshot)
        hits = searcher.search("common", ["en"], SearchOptions(k=100), Subset(None, parse(WHERE)))
        assert {hit["doc_id"] for hit in hits} == expect(PAGES, holds)
        with pytest.raises(RecipeError, match=r"no field 'yaer': expected one of year \(number\), section \(string\)"):
            searcher.search("common", ["en"], SearchOptions(k=5), Subset(None, parse("yaer > 1")))


def test_each_part_of_a_server_finds_its_own_documents_of_a_subset(served: Served) -> None:
    """A request and what it is limited to, as the gateway sends them to each group of shards."""
    layout = Layout.plan(served, Limits(), most_bytes=0, with_encoder=False)
    parts = [OpenShards(layout, group) for group in layout.groups]
    assert len(parts) == 2

    def ask(**limits: Any) -> list[list[str]]:
        request = pickle.loads(pickle.dumps(SearchRequest(query="common", k=100, **limits)))
        answers = [asyncio.run(part.search(0, "common", request, with_texts=False)) for part in parts]
        return [[name for name, _ in answer.rankings["en"]] for answer in answers]

    found = ask(filter=write_json(parse(WHERE)))
    assert all(found)
    assert sorted(name for names in found for name in names) == sorted(expect(PAGES, holds))
    assert sum(map(len, ask())) == len(PAGES)


def test_filters_and_ids_over_http(served: Served) -> None:
    server = ServerHere(served)
    assert server.info.fields == FIELDS
    condition = {"and": [{"field": "year", "op": ">=", "value": 2010},
                         {"field": "section", "op": "in", "value": ["a", "c"]}]}  # fmt: skip

    def ask(**limits: Any) -> set[str]:
        answer = server.post("/search", {"query": "common", "k": 1000, **limits})
        assert answer.status_code == 200, answer.text
        return {result["doc_id"] for result in answer.json()["results"]}

    assert ask(filter=condition) == expect(PAGES, holds)
    assert ask(ids=list(IDS)) == set(IDS) & set(PAGES)
    assert ask(ids=list(IDS), filter=condition) == expect(PAGES, holds) & set(IDS)
    assert ask(ids=[]) == ask(filter={"field": "year", "op": ">", "value": 3000}) == set()
    assert ask(ids=None, filter=None) == set(PAGES)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ({"field": "jahr", "op": "exists"}, "filter: no field 'jahr': expected one of year (number), section (string)"),
        (
            {"field": "year", "op": ">", "value": "x"},
            "filter: field 'year': expected a number to compare with",
        ),
        ({}, "filter: expected a condition with the keys field, op and value"),
        ({"not": {"field": "\ud800", "op": "exists"}}, "filter: no field '\\ud800'"),
        ("year > 1", "filter: expected a condition such as"),
    ],
)
def test_a_wrong_filter_has_the_form_of_every_error(served: Served, condition: Any, message: str) -> None:
    body = json.dumps({"query": "common", "filter": condition})
    answer = ServerHere(served).send("POST", "/search", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert message in answer.json()["error"]
    assert [fault["field"] for fault in answer.json()["fields"]] == ["filter"]


def test_an_id_that_no_document_can_have_finds_nothing(served: Served) -> None:
    body = '{"query": "common", "ids": ["\\ud800"]}'
    answer = ServerHere(served).send("POST", "/search", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["results"]) == (200, [])


def test_no_choice_of_fields_trains_anything_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The searched documents are indexed anew; the training of the student is the step that it was."""
    monkeypatch.chdir(tmp_path)
    docs = {f"docs.{lang}.jsonl": lines(*({"doc_id": f"d{i}", "text": f"{lang} {i}", "year": i} for i in range(40)))
            for lang in ("en", "de")}  # fmt: skip
    asked = {"queries.jsonl": lines(*({"query_id": f"q{i}", "text": f"question {i}"} for i in range(40)))}
    judged = {"qrels.tsv": "".join(f"q{i} 0 d{i} 1\n" for i in range(40))}
    data = write(tmp_path / "data", docs | asked | judged)
    assert write_recipe("mine", str(data)).data["fields"] == {"year": "number"}
    recipe = load("mine.toml")
    kept, plain = plan(recipe), plan(recipe.model_copy(update={"source": drop_fields(recipe.source)}))
    assert kept.training
    assert plain.training
    assert kept.training.train.id == plain.training.train.id
    (searched,), (before,) = ({c.docs["de"].id for c in p.collections.values()} for p in (kept, plain))
    assert searched != before
    assert kept.indexes["mine", "student"].id != plain.indexes["mine", "student"].id


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--where", "year >"], "cannot read the condition 'year >': expected a number, true, false"),
        (["--ids", "absent.txt"], "expected a file at .*absent.txt, found none"),
    ],
)
def test_the_command_line_refuses_what_is_no_limit(words: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["search", "atlas", "money", *words])
    assert done.exit_code == 1
    assert re.search(message, " ".join(done.stderr.split()))
