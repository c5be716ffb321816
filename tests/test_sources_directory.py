"""A directory of documents: every readable file is one, named by its path, in one language or in a folder for each."""

import json
import time

import pytest

from cluster.component import fingerprint
from cluster.errors import RecipeError
from cluster.storage import Place
from collections_on_disk import rejects, rows, write
from pipelines.ingest import ABSENT, IngestConfig, IngestDocs
from pipelines.sources import Directory
from pipelines.sources.documents import read_html, read_markdown

FILES = {
    "readme.txt": "\ufeffPlain words.\r\nSecond line.\r\n",
    "guide/install_on-linux.md": "---\nid: x\n---\n\n## Install it ##\n\nRun `make`.\n\n# Later\nmore\n",
    "guide/front.markdown": "---\ntitle: 'Front page'\nlayout: y\n---\n# Body heading\ntext\n",
    "guide/page.html": "<html><head><title>A  page</title><style>p {}</style></head><body><h1>Big</h1><p>One "
    "<b>bold</b> &amp; two</p><script>var x = '<p>';</script><ul><li>a<li>b</ul></body></html>",
    "faq.jsonl": json.dumps({"id": "f1", "title": "T", "text": "x"}) + "\n{}\n" + json.dumps({"text": "y"}) + "\n",
    "empty.txt": " \n",
    "broken.txt": b"\xff\xfe",
    "packed.txt.gz": "packed",
    "image.png": b"\x89PNG",
    ".git/config.txt": "hidden",
    ".hidden.md": "hidden",
}


def test_every_readable_file_is_a_document_named_by_its_path(tmp_path):
    source = Directory(path=write(tmp_path, FILES))
    entries = list(source.docs("en", "all"))
    assert [(row["doc_id"], row["title"], row["text"]) for row in rows(entries)] == [
        ("f1", "T", "x"),
        ("faq.jsonl:3", "", "y"),
        ("guide/front.markdown", "Front page", "# Body heading\ntext"),
        ("guide/install_on-linux.md", "Install it", "Run `make`.\n\n# Later\nmore"),
        ("guide/page.html", "A page", "Big\nOne bold & two\na\nb"),
        ("packed.txt.gz", "packed", "packed"),
        ("readme.txt", "readme", "Plain words.\nSecond line."),
    ]
    assert rejects(entries) == [
        ("broken.txt", "invalid UTF-8"),
        ("empty.txt", "empty text"),
        ("faq.jsonl:2", "malformed line"),
    ]
    assert list(source.ids("docs")) == [row["doc_id"] for row in rows(entries)]


def test_titles_of_markdown_and_html():
    assert read_markdown("no heading\n#notone\n") == ("", "no heading\n#notone")
    assert read_markdown("# Only") == ("Only", "")
    assert read_markdown("---\nnot: closed\n# H\n")[0] == "H"
    assert read_html("just text") == ("", "just text")
    assert read_html("<p>a</p><p>b<br>c</p>") == ("", "a\nb\nc")


def test_folders_name_the_language_and_the_rest_of_the_path_the_document(tmp_path):
    files = {"en/a.md": "# A\nx", "de/a.md": "# Ä\ny", "zh_CN/a.md": "# 甲\nz", "readme.md": "left out"}
    source = Directory(path=write(tmp_path, files), language_folders=True)
    assert {lang: rows(source.docs(lang, "all"))[0]["title"] for lang in ("en", "de", "zh")} == {
        "en": "A",
        "de": "Ä",
        "zh": "甲",
    }
    assert [(r["doc_id"], r["lang"]) for r in rows(source.docs("de", "all"))] == [("a.md", "de")]
    config = IngestConfig.of(source, "fr", "all", 10, "docs")
    assert config.content.startswith(
        f"{ABSENT}expected documents (.txt, .md, .markdown, .html, .htm, .jsonl) in a folder"
    )


def test_questions_splits_and_other_languages_are_refused_with_what_to_do(tmp_path):
    source = Directory(path=write(tmp_path, {"a.txt": "x"}))
    for table in ("queries", "qrels"):
        with pytest.raises(RecipeError, match=f"has no {table}: take them from another source"):
            IngestConfig.of(source, "en", "all", 10, table)
    with pytest.raises(RecipeError, match="has no split 'train'; it has all"):
        source.docs("en", "train")
    with pytest.raises(RecipeError, match="is in en, asked for de: set source.lang"):
        source.docs("de", "all")


def test_content_follows_the_files_and_not_the_place(tmp_path):
    def content(name):
        return fingerprint(IngestConfig.of(Directory(path=str(tmp_path / name)), "en", "all", 10, "docs"))

    for name in "ab":
        write(tmp_path / name, FILES)
    assert content("a") == content("b")
    write(tmp_path / "b", {"guide/new.md": "new"})
    assert content("a") != content("b")


def test_ingest_of_a_directory_counts_what_it_cannot_read(tmp_path):
    config = IngestConfig.of(Directory(path=write(tmp_path, FILES)), "en", "all", 4, "docs")
    parts = list(IngestDocs(config, {})())
    assert [len(rows) for rows, _ in parts] == [4, 3]
    assert sum(len(rejected) for _, rejected in parts) == 3


def test_a_directory_in_an_object_store_is_what_it_is_on_disk(tmp_path, s3_root):
    here = Directory(path=write(tmp_path, FILES))
    remote = Place.of(s3_root) / "directory"
    for file in (f for f in tmp_path.rglob("*") if f.is_file()):
        (remote / str(file.relative_to(tmp_path))).write(file.read_bytes())
    there = Directory(path=remote.uri)
    assert list(there.docs("en", "all")) == list(here.docs("en", "all"))


def test_the_plan_of_two_thousand_files_takes_seconds(tmp_path):
    write(tmp_path, {f"{i % 40}/{i}.md": f"# {i}\ntext" for i in range(2000)})
    before = time.process_time()
    IngestConfig.of(Directory(path=str(tmp_path)), "en", "all", 10, "docs")
    taken = time.process_time() - before
    print(f"{taken:.2f} s")
    assert taken < 10
