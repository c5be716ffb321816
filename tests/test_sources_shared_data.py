"""Sources on the shared data sets: what is read is what their READMEs count, and folds do not leak."""

from collections_on_disk import rejects, rows
from pipelines.sources import Jsonl, Mmarco, MsMarco, Parallel


def test_msmarco_layout_counts(shared_data):
    path = str(shared_data / "msmarco-layout")
    source = Mmarco(path=path)
    for lang in ("ar", "zh", "en", "de", "hi", "ru", "es", "vi"):
        counts = [len(rows(source.docs(lang, "train")))]
        counts += [len(rows(source.queries(lang, split))) for split in ("train", "train.judged", "dev", "all")]
        assert counts == [240, 400, 400, 100, 500], lang
    assert [len(rows(source.qrels("zh", split))) for split in ("train", "dev", "dev.small")] == [400, 100, 50]
    original = MsMarco(path=path)
    assert rows(original.docs("en", "train")) == rows(source.docs("en", "train"))
    assert not rejects(source.qrels("de", "train"))


def test_hc3_topics_and_judgements_are_those_of_the_readme(shared_data):
    root = shared_data / "topics" / "hc3"
    for part, topics, translated, judged in (("train", 16, 10, 10), ("eval", 87, 50, 50)):
        path = str(root / f"{part}.topics.jsonl")
        source = Jsonl(
            docs_path=path,
            queries_path=path,
            qrels_path=str(root / f"zho.{part}.qrels"),
            topics=("title", "description"),
        )
        questions = {lang: list(source.queries(lang, "all")) for lang in ("en", "zh")}
        assert [len(rows(entries)) for entries in questions.values()] == [topics, translated]
        assert not any(rejects(entries) for entries in questions.values())
        assert len({row["query_id"] for row in rows(source.qrels("zh", "all"))}) == judged
    asteroids = "Asteroids Endangering Earth Articles related to asteroids that pose danger of impact to Earth."
    first = Jsonl(docs_path=path, queries_path=str(root / "train.topics.jsonl"), topics=("title", "description"))
    assert rows(first.queries("en", "all"))[0]["text"] == asteroids


def test_collections_without_split_files_are_divided_by_page(shared_data):
    source = Parallel(path=str(shared_data / "react" / "en-zh"))
    counts = [len(rows(source.queries("zh", split))) for split in ("train", "dev", "test")]
    assert sum(counts) == 868
    assert all(counts)
    seen = {row["doc_id"].partition("#")[0] for row in rows(source.docs("zh", "train"))}
    judged = {row["doc_id"].partition("#")[0] for s in ("dev", "test") for row in rows(source.qrels("zh", s))}
    assert not seen & judged


def test_xquad_counts(shared_data):
    sizes = [(715, 242, 233), (707, 241, 242), (716, 233, 241), (716, 241, 233), (716, 233, 241)]
    path = str(shared_data / "xquad")
    for fold, counts in enumerate(sizes):
        source = Parallel(path=path, fold=fold)
        assert tuple(len(rows(source.queries("zh", s))) for s in ("train", "dev", "test")) == counts
        assert tuple(len(rows(source.qrels("zh", s))) for s in ("train", "dev", "test")) == counts
        training = {row["doc_id"] for row in rows(source.docs("th", "train"))}
        judged = {s: {row["doc_id"] for row in rows(source.qrels("th", s))} for s in ("train", "dev", "test")}
        assert judged["train"] <= training
        assert not training & (judged["dev"] | judged["test"])
    for lang in ("ar", "de", "el", "en", "es", "hi", "ru", "th", "tr", "vi", "zh"):
        docs = list(Parallel(path=path).docs(lang, "all"))
        assert (len(rows(docs)), len(rejects(docs))) == (240, 0)


def test_lareqa_counts(shared_data):
    source = Parallel(path=str(shared_data / "lareqa"), fold=1)
    published = {"ar": 1222, "de": 1276, "el": 1234, "en": 1180, "es": 1215, "hi": 1244, "ru": 1219, "th": 852}
    published |= {"tr": 1167, "vi": 1209, "zh": 1196}
    assert {lang: len(rows(source.docs(lang, "all"))) for lang in published} == published
    assert {row["doc_id"][:3] for row in rows(source.qrels("tr", "test"))} == {"tr-"}
    assert [len(rows(source.qrels("zh", s))) for s in ("train", "dev", "test", "all")] == [707, 241, 242, 1190]
    assert not rejects(source.docs("en", "all"))
    assert rows(source.docs("en", "all"))[0]["text"].count("\t") == 0


def test_every_other_parallel_collection_is_read_whole(shared_data):
    for name, langs, counts in [
        ("react/en-fa", ("en", "fa"), (179, 112, 112)),
        ("react/en-zh", ("en", "zh"), (1596, 868, 868)),
        ("squad-nqg", ("en",), None),
    ]:
        source = Parallel(path=str(shared_data / name))
        for lang in langs:
            read = [list(getattr(source, table)(lang, "all")) for table in ("docs", "queries", "qrels")]
            assert not any(rejects(entries) for entries in read)
            assert counts in (None, tuple(len(rows(entries)) for entries in read))
