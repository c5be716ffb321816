"""Small served collections for tests: real indexes of real shards, behind one Ray Serve in a process of its own."""

import multiprocessing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from artifacts import directory_artifact, table_artifact
from cluster.artifact import Artifact
from cluster.storage import Place
from conftest import free_port
from pipelines.encode import Encode, EncodeConfig
from pipelines.index import IndexConfig, build_index
from pipelines.indexes import Bm25, Faiss, Plaid
from pipelines.students import AnyStudent
from pipelines.tables import DOCS, VECTORS
from serving.app import Scale, Served, application
from serving.messages import Limits
from shards import local_fan_out

Documents = dict[str, Artifact]

# Equal texts in both parts of English, and in English and Persian, make equal scores: ties that a merge must order.
EN = [
    ("Iran", "Iran is a country in Western Asia. Its capital is Tehran, its currency the Iranian rial."),
    ("France", "France is a country in Western Europe. Its capital is Paris, its currency the euro."),
    ("", "The ruble is the currency of Russia."),
]
MARKUP = (
    "<img src=x onerror=\"document.title='run'\">",
    "Markup </p><img src=x> <script>document.title='run'</script> &amp;",
)
TEXTS = {
    "en": [
        EN,
        [
            ("", "The ruble is the currency of Russia."),
            ("Japan", "The yen is the currency of Japan. " * 40),
            MARKUP,
        ],
    ],
    "fa": [
        [("ایران", "ایران کشوری در غرب آسیا است. پایتخت آن تهران است."), ("", "The ruble is the currency of Russia.")]
    ],
    "ru": [
        [("Иран", "Иран — государство в Азии. Столица — Тегеран, валюта — риал."), ("", "Франция — страна в Европе.")]
    ],
    "zh": [[("", "伊朗是西亚的一个国家，首都是德黑兰。"), ("", "法国是西欧的一个国家，首都是巴黎。")]],
}


def docs(root: Path) -> Documents:
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
    inputs = {"docs": collection}
    return Served("tiny", "bm25", _index(root / "index-bm25@0", Bm25(), inputs), collection)


def lexical(root: Path) -> Served:
    """A late-interaction student, which makes zero vectors of a text without words, and PLAID."""
    from pipelines.students import Lexical

    return _student(root, "lexical", Lexical(words=None, dim=32, ngram_rows=1024), Plaid(bits=2), docs(root))


def dense(root: Path) -> Served:
    """A student of one vector per text, and faiss, in two languages."""
    from pipelines.students import Dense
    from pipelines.students.scratch import Scratch

    base = Scratch(vocabulary=400, hidden=32, layers=1, heads=2, positions=64)
    collection = {lang: made for lang, made in docs(root).items() if lang in ("en", "fa")}
    return _student(root, "dense", Dense(base=base, query_length=12, doc_length=48), Faiss(), collection)


def _student(root: Path, system: str, config: AnyStudent, index: Plaid | Faiss, collection: Documents) -> Served:
    from pipelines.docstore import Docstore
    from pipelines.students import Corpus

    stores = {lang: Docstore.open(artifact) for lang, artifact in collection.items()}
    config.build(Corpus(stores["en"], stores), seed=1).save(root / "train@0" / "best")
    trained = directory_artifact(root / "train@0")
    encode = Encode(EncodeConfig(role="docs", passage_length=40, passage_stride=20), {"student": trained})
    vectors = {}
    for lang, artifact in collection.items():
        rows = [VECTORS.conform(encode(table)).to_pylist() for table in artifact.tables()]
        vectors[lang] = table_artifact(root / f"encode-{lang}@0", VECTORS, *rows)
    return Served("tiny", system, _index(root / f"index-{system}@0", index, {"vectors": vectors}), collection, trained)


def _index(directory: Path, kind: Bm25 | Plaid | Faiss, inputs: Mapping[str, Mapping[str, Artifact]]) -> Artifact:
    build_index(IndexConfig(index=kind, shard_rows=3), inputs, Place.of(directory), local_fan_out)
    return directory_artifact(directory)


SYSTEMS = {"words": words, "lexical": lexical, "dense": dense}
# words: short, for the tests that wait for it
LIMITS = {name: Limits(max_query_chars=200, timeout_s=5 if name == "words" else 20) for name in SYSTEMS}


@dataclass(frozen=True)
class Running:
    """Systems behind one Ray Serve: each at ``<base>/<name>``. ``metrics`` is where Ray reports its metrics."""

    systems: Mapping[str, Served]
    base: str
    ray_address: str
    metrics: str

    def url(self, name: str) -> str:
        """Where a system is, without a slash at its end."""
        return f"{self.base}/{name}"


@contextmanager
def running(root: Path) -> Iterator[Running]:
    """Serve the systems from a process of their own, so that this one holds no Ray that another test would find."""
    systems = {name: make(root / name) for name, make in SYSTEMS.items()}
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(systems, free_port(), there))
    process.start()
    there.close()
    try:
        port, address, metrics = here.recv()  # EOFError: it ended, and its traceback is above
        yield Running(systems, f"http://127.0.0.1:{port}", address, f"http://127.0.0.1:{metrics}/metrics")
    finally:
        here.close()
        process.join(60)


def _serve(systems: Mapping[str, Served], port: int, parent: Connection) -> None:
    """Serve until the parent closes its end."""
    import ray
    from ray import serve

    quick = {"metrics_report_interval_ms": 200}
    started = ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        _system_config=quick,
    )
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config={"log_level": "ERROR"})
        apps = {name: application(system, Scale(cpus=0.01), LIMITS[name]) for name, system in systems.items()}
        serve.run_many([serve.RunTarget(app, name, f"/{name}") for name, app in apps.items()])
        parent.send((port, started["gcs_address"], ray.nodes()[0]["MetricsExportPort"]))
        parent.poll(None)
    finally:
        serve.shutdown()
        ray.shutdown()
