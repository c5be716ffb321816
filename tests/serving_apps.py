"""Small served collections for tests: real indexes of real shards, behind a real Ray Serve on a port of its own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from artifacts import directory_artifact, table_artifact
from cluster.artifact import Artifact
from cluster.storage import Place
from conftest import free_port
from pipelines.encode import Encode, EncodeConfig
from pipelines.index import IndexConfig, build_index
from pipelines.indexes import Bm25, Exact
from pipelines.tables import DOCS, VECTORS
from serving.app import NAME, Limits, Scale, Served, application

# Equal texts in both parts of English, and in English and Persian, make equal scores: ties that a merge must order.
EN = [
    ("Iran", "Iran is a country in Western Asia. Its capital is Tehran, its currency the Iranian rial."),
    ("France", "France is a country in Western Europe. Its capital is Paris, its currency the euro."),
    ("", "The ruble is the currency of Russia."),
]
TEXTS = {
    "en": [EN, [("", "The ruble is the currency of Russia."), ("Japan", "The yen is the currency of Japan. " * 40)]],
    "fa": [
        [("ایران", "ایران کشوری در غرب آسیا است. پایتخت آن تهران است."), ("", "The ruble is the currency of Russia.")]
    ],
    "ru": [
        [("Иран", "Иран — государство в Азии. Столица — Тегеран, валюта — риал."), ("", "Франция — страна в Европе.")]
    ],
    "zh": [[("", "伊朗是西亚的一个国家，首都是德黑兰。"), ("", "法国是西欧的一个国家，首都是巴黎。")]],
}


def docs(root: Path) -> dict[str, Artifact]:
    """DOCS artifacts by language, a part for each inner list of TEXTS. Ids begin anew in every language."""
    made = {}
    for lang, parts in TEXTS.items():
        numbers = iter(range(100))
        rows = [
            [{"doc_id": f"d{next(numbers)}", "lang": lang, "title": t, "text": x} for t, x in part] for part in parts
        ]
        made[lang] = table_artifact(root / f"docs-{lang}@0", DOCS, *rows)
    return made


def words(root: Path) -> Served:
    """A BM25 system."""
    collection = docs(root)
    inputs = {f"docs-{lang}": artifact for lang, artifact in collection.items()}
    return Served("tiny", "bm25", _index(root / "index-bm25@0", Bm25(), inputs), collection)


def student(root: Path) -> Served:
    """A late-interaction student of random weights, behind an exact index: two shards of English, one of the others."""
    from pipelines.docstore import Docstore
    from pipelines.students import Corpus, LateInteraction
    from pipelines.students.scratch import Scratch

    collection = docs(root)
    stores = {lang: Docstore.open(artifact) for lang, artifact in collection.items()}
    base = Scratch(vocabulary=400, hidden=32, layers=1, heads=2, positions=64)
    late = LateInteraction(base=base, dim=16, query_length=12, doc_length=48)
    late.build(Corpus(stores["en"], stores), seed=1).save(root / "train@0" / "best")
    trained = directory_artifact(root / "train@0")
    encode = Encode(EncodeConfig(role="docs", passage_length=40, passage_stride=20), {"student": trained})
    vectors = {}
    for lang, artifact in collection.items():
        rows = [VECTORS.conform(encode(table)).to_pylist() for table in artifact.tables()]
        vectors[f"vectors-{lang}"] = table_artifact(root / f"encode-{lang}@0", VECTORS, *rows)
    return Served("tiny", "student", _index(root / "index-student@0", Exact(), vectors), collection, trained)


def _index(directory: Path, kind: Bm25 | Exact, inputs: Mapping[str, Artifact]) -> Artifact:
    def one_after_another(label, work, arguments, units):
        build = work(**arguments)
        return [build(unit) for unit in units]

    build_index(IndexConfig(index=kind, shard_rows=3), inputs, Place.of(directory), one_after_another)
    return directory_artifact(directory)


@contextmanager
def running(served: Served, limits: Limits | None = None) -> Iterator[str]:
    """Serve this in a Ray of two CPUs; gives the URL, without a slash at its end."""
    import ray
    from ray import serve

    port = free_port()
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config={"log_level": "ERROR"})
        serve.run(application(served, Scale(cpus=0.01), limits), name=NAME)
        yield f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()
        ray.shutdown()
