"""Sources of tab-separated files, against files written here with every defect, on a disk and on an object store."""

import gzip
import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from cluster.component import fingerprint
from cluster.errors import RecipeError, StepError, StorageError
from cluster.storage import Place
from collections_on_disk import rejects, rows, write
from pipelines.sources import AnySource, Beir, Jsonl, Mmarco, MsMarco, Parallel
from pipelines.sources.files import File, identify

MSMARCO = {
    "collection.tsv": "0\tzero\n1\tone\n2\ttwo\n",
    "queries.train.tsv": "10\tten?\n",
    "queries.dev.tsv": "20\ttwenty?\n21\tmore?\n",
    "queries.dev.small.tsv": "20\ttwenty?\n",
    "qrels.train.tsv": "10\t0\t1\t1\n",
    "qrels.dev.tsv": "20\t0\t2\t1\n21\t0\t0\t1\n",
    "qrels.dev.small.tsv": "20\t0\t2\t1\n",
}


def test_lines_end_at_line_feeds_alone(tmp_path):
    content = "\ufeff1\ta\u2028b\x0bc\x85d\re\r\n2\tlast".encode()
    write(tmp_path, {"x.tsv": content})
    lines = list(File("x.tsv", Place.of(tmp_path / "x.tsv")).lines())
    assert lines == [("x.tsv:1", "1\ta\u2028b\x0bc\x85d\re"), ("x.tsv:2", "2\tlast")]


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_lines_longer_than_a_block_are_whole(tmp_path, size):
    write(tmp_path, {"x.tsv": "a\n" + "x" * size + "\nz\n"})
    assert [line for _, line in File("x.tsv", Place.of(tmp_path / "x.tsv")).lines()] == ["a", "x" * size, "z"]


def test_every_defect_of_a_collection_is_named_with_its_line(tmp_path):
    lines = [
        b"\xef\xbb\xbf0\tfirst, after a byte order mark\r",
        b"one column",
        b"2\ttab\tinside",
        b"3\tbroken \xff\xfe bytes",
        b"4\t \xc2\xa0\xe3\x80\x80 ",
        b"\tno id",
        b"",
        "7\tгодная строка\u2028с разделителем".encode(),
    ]
    path = write(tmp_path, {"collection.tsv": b"\n".join(lines) + b"\n"})
    entries = list(MsMarco(path=path).docs("en", "train"))
    assert [row["doc_id"] for row in rows(entries)] == ["0", "7"]
    assert rows(entries)[0] == {"doc_id": "0", "lang": "en", "title": "", "text": "first, after a byte order mark"}
    assert rejects(entries) == [
        ("collection.tsv:2", "malformed line"),
        ("collection.tsv:3", "malformed line"),
        ("collection.tsv:4", "invalid UTF-8"),
        ("collection.tsv:5", "empty text"),
        ("collection.tsv:6", "malformed line"),
        ("collection.tsv:7", "malformed line"),
    ]


def test_every_defect_of_judgements_is_named(tmp_path):
    text = "q1 0 d1 1\nq1\t0\td2\t0\nq1 0 d3\tx\nq2 d1\nq3 0 d1 1.5\nq3 0 d1 -1\nq3 0 d1 99999999999\n\t0\td\t1\n"
    text += "q4 Q0   d4 2 \n"
    write(tmp_path, {"queries.en.tsv": "q1\tx\n", "qrels.tsv": text})
    entries = list(Parallel(path=str(tmp_path)).qrels("en", "all"))
    assert [tuple(row.values()) for row in rows(entries)] == [
        ("q1", "d1", 1),
        ("q1", "d2", 0),
        ("q3", "d1", -1),
        ("q4", "d4", 2),
    ]
    assert [reject for _, reject in rejects(entries)] == [
        *("malformed line", "malformed line", "invalid relevance", "invalid relevance", "malformed line")
    ]


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2"])
def test_msmarco_splits_plain_and_compressed(tmp_path, suffix):
    source = MsMarco(path=write(tmp_path, {f"{name}{suffix}": text for name, text in MSMARCO.items()}))
    assert [row["text"] for row in rows(source.docs("en", "dev"))] == ["zero", "one", "two"]
    got = {s: [row["query_id"] for row in rows(source.queries("en", s))] for s in ("train", "dev", "dev.small", "all")}
    assert got == {"train": ["10"], "dev": ["20", "21"], "dev.small": ["20"], "all": ["10", "20", "21"]}
    assert rows(source.qrels("en", "dev.small")) == [{"query_id": "20", "doc_id": "2", "relevance": 1}]
    assert [entry.where for entry in source.queries("en", "train")] == [f"queries.train.tsv{suffix}:1"]


def test_msmarco_judged_training_queries_are_a_split(tmp_path):
    base = "mmarco/data/google"
    files = {
        **MSMARCO,
        "queries.train.tsv": "10\tten?\n11\tnot judged?\n12\ttwelve?\nbroken\n",
        "qrels.train.tsv": "12\t0\t1\t1\n10\t0\t1\t1\n10\t0\t2\t1\n",
        f"{base}/queries/train/german_queries.train.tsv": "10\tzehn?\n11\tnicht?\n12\tzwölf?\n",
    }
    path = write(tmp_path, files)
    source = MsMarco(path=path)
    judged = list(source.queries("en", "train.judged"))
    assert [row["query_id"] for row in rows(judged)] == ["10", "12"]
    assert rejects(judged) == [("queries.train.tsv:4", "malformed line")]
    assert len(rows(source.queries("en", "train"))) == 3
    assert list(source.qrels("en", "train.judged")) == list(source.qrels("en", "train"))
    assert [row["text"] for row in rows(Mmarco(path=path).queries("de", "train.judged"))] == ["zehn?", "zwölf?"]
    before = identify(source, "queries", "en", "train.judged")
    Path(path, "qrels.train.tsv").write_text("12\t0\t1\t1\n")
    assert identify(source, "queries", "en", "train.judged") != before


def test_msmarco_says_which_splits_languages_and_files_it_has(tmp_path):
    source = MsMarco(path=write(tmp_path, MSMARCO))
    with pytest.raises(RecipeError, match="has train, train.judged, dev, dev.small, all"):
        list(source.queries("en", "test"))
    with pytest.raises(RecipeError, match="kind=mmarco"):
        source.docs("de", "train")
    (tmp_path / "collection.tsv").unlink()
    with pytest.raises(RecipeError, match=r"expected collection\.tsv .*found there: qrels\.dev\.small\.tsv"):
        source.docs("en", "train")


def test_a_truncated_archive_is_an_error_not_a_short_collection(tmp_path):
    whole = gzip.compress("".join(f"{i}\ttext {i}\n" for i in range(10_000)).encode())
    (tmp_path / "collection.tsv.gz").write_bytes(whole[:-20])
    with pytest.raises(StorageError, match=r"collection\.tsv\.gz.*Fetch the file again"):
        list(MsMarco(path=str(tmp_path)).docs("en", "all"))


def test_an_archive_of_several_members_is_read_to_its_end(tmp_path):
    (tmp_path / "collection.tsv.gz").write_bytes(gzip.compress(b"0\ta\n") + gzip.compress(b"1\tb\n"))
    assert [row["doc_id"] for row in rows(MsMarco(path=str(tmp_path)).docs("en", "all"))] == ["0", "1"]


def test_mmarco_reads_translations_and_the_english_original(tmp_path):
    base = "mmarco/data/google"
    files = {
        **MSMARCO,
        f"{base}/collections/german_collection.tsv": "0\tnull\n",
        f"{base}/queries/dev/german_queries.dev.small.tsv": "20\tzwanzig?\n",
    }
    source = Mmarco(path=write(tmp_path, files))
    assert rows(source.docs("de", "train")) == [{"doc_id": "0", "lang": "de", "title": "", "text": "null"}]
    assert [row["text"] for row in rows(source.queries("de", "dev.small"))] == ["zwanzig?"]
    assert len(rows(source.docs("en", "train"))) == 3
    assert rows(source.qrels("de", "dev.small")) == rows(source.qrels("en", "dev.small"))
    moved = write(tmp_path / "elsewhere", {"collections/german_collection.tsv": "0\tnull\n"})
    apart = Mmarco(path=str(tmp_path), translations=moved)
    assert rows(apart.docs("de", "train")) == rows(source.docs("de", "train"))
    with pytest.raises(RecipeError, match="mMARCO has no Persian"):
        source.docs("fa", "train")


PARALLEL = {
    "collection.en.tsv": "a1\tone\na2\ttwo\nb1\tthree\nc1\tfour\n",
    "collection.de.tsv": "a1\teins\na2\tzwei\nb1\tdrei\nc1\tvier\n",
    "queries.en.tsv": "qa\ta?\nqb\tb?\nqc\tc?\n",
    "qrels.tsv": "qa 0 a1 1\nqb 0 b1 1\nqc 0 c1 1\nghost 0 c1 1\n",
    "groups.tsv": "a1\tA\na2\tA\nb1\tB\nc1\tC\nqa\tA\nqb\tB\nqc\tC\n",
    "splits/fold0.tsv": "qa\ttrain\nqb\tdev\nqc\ttest\n",
}


def test_parallel_fold_splits_queries_judgements_and_strictly_the_training_documents(tmp_path):
    path = write(tmp_path, PARALLEL)
    source = Parallel(path=path, fold=0)
    assert [row["doc_id"] for row in rows(source.docs("de", "train"))] == ["a1", "a2"]
    assert [row["doc_id"] for row in rows(source.docs("de", "test"))] == ["a1", "a2", "b1", "c1"]
    assert len(rows(Parallel(path=path, fold=0, strict=False).docs("de", "train"))) == 4
    assert [row["query_id"] for row in rows(source.queries("en", "dev"))] == ["qb"]
    assert [row["query_id"] for row in rows(source.qrels("de", "test"))] == ["qc", "ghost"]
    assert [row["query_id"] for row in rows(source.qrels("de", "all"))] == ["qa", "qb", "qc", "ghost"]
    assert sorted(source.ids("docs")) == sorted(["a1", "a2", "b1", "c1"] * 2)


def test_parallel_reads_questions_as_texts_of_their_own_split(tmp_path):
    files = PARALLEL | {"queries.de.tsv": "qa\ta!\nqb\tb!\nqc\tc!\n"}
    source = Parallel(path=write(tmp_path, files), texts="questions")
    assert rows(source.docs("de", "train")) == [{"doc_id": "qa", "lang": "de", "title": "", "text": "a!"}]
    assert rows(source.queries("de", "train")) == [{"query_id": "qa", "lang": "de", "text": "a!"}]
    assert rows(source.qrels("de", "test")) == [{"query_id": "qc", "doc_id": "qc", "relevance": 1}]
    assert sorted(source.ids("docs")) == sorted(["qa", "qb", "qc"] * 2)
    assert [file.name for file in source.files("docs", "de", "train")] == ["queries.de.tsv", "splits/fold0.tsv"]


def test_parallel_says_which_splits_folds_and_languages_it_has(tmp_path):
    path = write(tmp_path, PARALLEL)
    assert len(rows(Parallel(path=path).queries("en", "all"))) == 3
    with pytest.raises(RecipeError, match="fold 0 has dev, test, train, all"):
        Parallel(path=path, fold=0).docs("en", "validation")
    with pytest.raises(RecipeError, match=r"found there: fold0\.tsv"):
        Parallel(path=path, fold=3).docs("en", "train")
    with pytest.raises(RecipeError, match=r"collection\.fr\.tsv.*collection\.de\.tsv, collection\.en\.tsv"):
        Parallel(path=path).docs("fr", "all")


def test_parallel_refuses_a_split_file_with_holes(tmp_path):
    path = write(tmp_path, {**PARALLEL, "splits/fold0.tsv": "qa\ttrain\nqb\n"})
    with pytest.raises(StepError, match=r"splits/fold0\.tsv:2: expected an id"):
        Parallel(path=path, fold=0).docs("en", "train")


def test_sources_on_an_object_store_give_what_they_give_on_disk(tmp_path, s3_root):
    local = write(tmp_path, {name + (".gz" if "en" in name else ""): text for name, text in PARALLEL.items()})
    remote = Place.of(s3_root) / "parallel"
    for file in sorted(tmp_path.rglob("*.*")):
        (remote / str(file.relative_to(tmp_path))).write(file.read_bytes())
    here, there = Parallel(path=local, fold=0), Parallel(path=remote.uri, fold=0)
    for table, lang, split in [
        ("docs", "en", "train"),
        ("docs", "de", "all"),
        ("queries", "en", "dev"),
        ("qrels", "de", "all"),
    ]:
        assert list(getattr(there, table)(lang, split)) == list(getattr(here, table)(lang, split))
        assert identify(there, table, lang, split) == identify(here, table, lang, split)
    assert sorted(there.ids("docs")) == sorted(here.ids("docs"))
    with pytest.raises(RecipeError) as error:
        there.docs("fr", "all")
    assert "secret_key" not in str(error.value)
    assert "collection.de.tsv" in str(error.value)


def _json_lines(root: Place, end: str) -> Jsonl:
    return Jsonl(**{f"{table}_path": (root / f"{table}.jsonl{end}").uri for table in ("docs", "queries", "qrels")})


RECORDS = {
    "docs.jsonl": '{"id": "d", "text": "one"}\n',
    "queries.jsonl": '{"id": "q", "text": "which?"}\n',
    "qrels.jsonl": '{"query_id": "q", "doc_id": "d", "relevance": 2}\n',
}
BEIR = {
    "corpus.jsonl": '{"_id": "d", "title": "T", "text": "one"}\n',
    "queries.jsonl": '{"_id": "q", "text": "which?"}\n',
    "qrels/dev.tsv": "query-id\tcorpus-id\tscore\nq\td\t1\n",
}
CHINESE = {
    "collections/chinese_collection.tsv": "0\t零\n",
    "queries/dev/chinese_queries.dev.tsv": "20\t二十?\n",
}


@pytest.mark.parametrize(
    ("files", "source", "lang"),
    [
        pytest.param(MSMARCO, lambda root, end: MsMarco(path=root.uri), "en", id="msmarco"),
        pytest.param(
            MSMARCO | {f"mmarco/data/google/{name}": text for name, text in CHINESE.items()},
            lambda root, end: Mmarco(path=root.uri),
            "zh",
            id="mmarco",
        ),
        pytest.param(BEIR, lambda root, end: Beir(path=root.uri), "en", id="beir"),
        pytest.param(RECORDS, _json_lines, "en", id="jsonl"),
    ],
)
def test_gzipped_in_an_object_store_is_plain_on_disk(tmp_path, s3_root, files, source, lang):
    here = source(Place.of(write(tmp_path / "plain", files)), "")
    write(tmp_path / "packed", {f"{name}.gz": text for name, text in files.items()})
    remote = Place.of(s3_root) / f"packed-{here.kind}"
    for name in files:
        (remote / f"{name}.gz").write((tmp_path / "packed" / f"{name}.gz").read_bytes())
    there = source(remote, ".gz")
    for table in ("docs", "queries", "qrels"):
        split = "all" if here.kind == "jsonl" else "dev"
        expected = rows(getattr(here, table)(lang, split))
        assert expected
        assert rows(getattr(there, table)(lang, split)) == expected


def test_identity_follows_the_content_and_not_the_path(tmp_path):
    first, second = write(tmp_path / "a", PARALLEL), write(tmp_path / "b", PARALLEL)
    source, moved = Parallel(path=first, fold=0), Parallel(path=second, fold=0)
    before = {table: identify(source, table, "en", "train") for table in ("docs", "queries", "qrels")}
    assert before == {table: identify(moved, table, "en", "train") for table in before}
    assert fingerprint(source) == fingerprint(moved)
    Path(second, "collection.de.tsv").write_text("other\ttext\n")
    assert identify(moved, "docs", "en", "train") == before["docs"]
    Path(second, "collection.en.tsv").write_text(PARALLEL["collection.en.tsv"].replace("one", "eno"))
    assert identify(moved, "docs", "en", "train") != before["docs"]
    assert identify(moved, "queries", "en", "train") == before["queries"]
    Path(second, "splits/fold0.tsv").write_text("qa\ttest\nqb\ttrain\nqc\ttest\n")
    assert identify(moved, "queries", "en", "train") != before["queries"]


def test_identity_sees_a_change_at_either_end_of_a_large_file(tmp_path):
    body = b"0\t" + b"x" * (5 << 19) + b"\n"
    digests = set()
    for number, content in enumerate([body, b"1" + body[1:], body[:-2] + b"y\n", body[:-1] + b"x\n"]):
        path = write(tmp_path / str(number), {"collection.tsv": content})
        digests.add(json.dumps(identify(MsMarco(path=path), "docs", "en", "all")))
    assert len(digests) == 4


def test_the_union_tells_sources_apart_and_refuses_unknown_keys():
    union = TypeAdapter(AnySource)
    assert isinstance(union.validate_python({"kind": "beir", "path": "x"}), Beir)
    assert isinstance(union.validate_python({"kind": "parallel", "path": "x", "fold": 2}), Parallel)
    for wrong in ({"kind": "beer", "path": "x"}, {"kind": "beir", "path": "x", "paht": "y"}, {"kind": "beir"}):
        with pytest.raises(ValidationError):
            union.validate_python(wrong)
