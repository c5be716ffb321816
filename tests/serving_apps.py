"""Small served systems for tests: real indexes with several shards, behind one Ray Serve in its own process."""

import multiprocessing
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx

from artifacts import directory_artifact, table_artifact
from cluster.artifact import Artifact
from cluster.storage import Place
from conftest import free_port
from pipelines.encode import Encode, EncodeConfig
from pipelines.encoder import EncoderConfig
from pipelines.filters.fields import FieldTypes, make_column
from pipelines.index import IndexConfig, build_index
from pipelines.indexes import Bm25, Exact, Faiss, Plaid
from pipelines.students import AnyStudent
from pipelines.tables import DOCS, VECTORS
from serving.app import Scale, Served, application, gateway_application
from serving.catalog import name_parts
from serving.messages import Limits
from shards import local_fan_out

Documents = dict[str, Artifact]

# Equal texts in both parts of English, and in Persian, have equal scores: ties that merging must order.
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


def make_docs(root: Path, fields: FieldTypes | None = None) -> Documents:
    """Write DOCS artifacts by language, a part for each inner list of TEXTS. Ids start at d0 in every language.

    The only field that ``fields`` may name is the number of the part.
    """
    artifacts = {}
    for lang, parts in TEXTS.items():
        numbers = iter(range(100))
        rows: list[list[dict[str, Any]]] = [
            [{"doc_id": f"d{next(numbers)}", "lang": lang, "title": t, "text": x} for t, x in part] for part in parts
        ]
        for number, part in enumerate(rows):
            for row in part if fields else ():
                row["metadata"] = {"part": float(number)}
        tables = [DOCS.of(part, make_column(fields or {})) for part in rows]
        artifacts[lang] = table_artifact(root / f"docs-{lang}@0", DOCS, *tables)
    return artifacts


def make_words_system(root: Path, fields: FieldTypes | None = None) -> Served:
    """Build a BM25 system, whose documents have these fields of metadata."""
    collection = make_docs(root, fields)
    inputs = {"docs": collection}
    return Served("tiny", "bm25", build_small_index(root / "index-bm25@0", Bm25(), inputs), collection)


def make_lexical_system(root: Path, fields: FieldTypes | None = None) -> Served:
    """Build a system of a lexical student, whose vector of a text without words is zero, and PLAID."""
    from pipelines.students import Lexical

    student = Lexical(words=None, dim=32, ngram_rows=1024)
    return _make_student_system(root, "lexical", student, Plaid(bits=2), make_docs(root, fields))


def make_dense_system(root: Path) -> Served:
    """Build a system of a dense student and faiss, in two languages."""
    from pipelines.students import Dense
    from pipelines.students.scratch import Scratch

    base = Scratch(vocabulary=400, hidden=32, layers=1, heads=2, positions=64)
    collection = {lang: artifact for lang, artifact in make_docs(root).items() if lang in ("en", "fa")}
    student = Dense(base=base, query_length=12, doc_length=48)
    return _make_student_system(root, "dense", student, Faiss(), collection)


def _make_student_system(
    root: Path, system: str, config: AnyStudent, index: Plaid | Faiss, collection: Documents
) -> Served:
    from pipelines.docstore import Docstore
    from pipelines.students import Corpus

    stores = {lang: Docstore.open(artifact) for lang, artifact in collection.items()}
    config.build(Corpus(stores["en"], stores), seed=1).save(root / "train@0" / "best")
    trained = directory_artifact(root / "train@0")
    return _make_vector_system(root, system, EncoderConfig(), trained, index, collection)


def make_minilm_system(root: Path, per_token: bool) -> Served:
    """Build a system of the ready MiniLM and an exact index, with one vector for each text or ``per_token``."""
    from pipelines.models import MINILM, Pretrained

    encoder = EncoderConfig(model=Pretrained(model=MINILM), per_token=per_token)
    return _make_vector_system(root, "student", encoder, None, Exact(), make_docs(root))


def _make_vector_system(
    root: Path,
    system: str,
    encoder: EncoderConfig,
    trained: Artifact | None,
    index: Plaid | Faiss | Exact,
    collection: Documents,
) -> Served:
    inputs = {"student": trained} if trained else {}
    encode = Encode(EncodeConfig(role="docs", passage_length=40, passage_stride=20, **dict(encoder)), inputs)
    vectors = {}
    for lang, artifact in collection.items():
        rows = [VECTORS.conform(encode(table)).to_pylist() for table in artifact.tables()]
        vectors[lang] = table_artifact(root / f"encode-{lang}@0", VECTORS, *rows)
    built = build_small_index(root / f"index-{system}@0", index, {"vectors": vectors})
    return Served("tiny", system, built, collection, encoder, trained, passages=(40, 20))


def build_small_index(
    directory: Path,
    kind: Bm25 | Plaid | Faiss | Exact,
    inputs: Mapping[str, Mapping[str, Artifact]],
    shard_rows: int = 3,
) -> Artifact:
    """Build an index artifact in this process, cut into shards of ``shard_rows`` documents."""
    build_index(IndexConfig(index=kind, shard_rows=shard_rows), inputs, Place.of(directory), local_fan_out)
    return directory_artifact(directory)


SYSTEMS = {
    "words": partial(make_words_system, fields={"part": "number"}),
    "lexical": make_lexical_system,
    "dense": make_dense_system,
}
TIMEOUTS = {"words": 5, "lexical": 10}  # short, since tests wait for them
LIMITS = {name: Limits(max_query_chars=200, timeout_s=TIMEOUTS.get(name, 20), queued=64) for name in SYSTEMS}
# every way to share processes: shards apart, without and with an encoder, and an encoder that holds the shards
SCALES = {name: Scale(cpus=0.01, shard_gb=4 if name == "lexical" else 1e-9) for name in SYSTEMS}


@dataclass(frozen=True)
class Server:
    """A running Ray Serve with each system at ``<base>/<name>``. ``metrics`` is the URL of Ray's metrics."""

    systems: Mapping[str, Served]
    base: str
    ray_address: str
    metrics: str

    def url(self, name: str) -> str:
        """Return the URL of a system, without a final slash."""
        return f"{self.base}/{name}"

    def parts(self, name: str) -> str:
        """Return the name of the application of a system's parts."""
        return name_parts(name, self.systems[name].fingerprint(LIMITS[name]))


@contextmanager
def serve_systems(root: Path) -> Iterator[Server]:
    """Serve the systems from another process, so that this one has no running Ray that another test would find."""
    systems = {name: make(root / name) for name, make in SYSTEMS.items()}
    context = multiprocessing.get_context("spawn")
    connection, child_connection = context.Pipe()
    process = context.Process(target=_run_server, args=(systems, free_port(), child_connection))
    process.start()
    child_connection.close()
    try:
        port, address, metrics = connection.recv()  # EOFError: the process ended; its traceback is in the output
        yield Server(systems, f"http://127.0.0.1:{port}", address, f"http://127.0.0.1:{metrics}/metrics")
    finally:
        connection.close()
        process.join(60)


def wait_until_ready(url: str, seconds: float = 60) -> None:
    """Wait until a server would answer searches."""
    end, found = time.monotonic() + seconds, "no answer"
    while time.monotonic() < end:
        with suppress(httpx.TimeoutException):
            answer = httpx.get(f"{url}/readyz", timeout=10)
            if answer.status_code == 200:
                return
            found = answer.text
        time.sleep(0.1)
    raise AssertionError(f"{url} is not ready after {seconds:.0f} s: {found}")


def _run_server(systems: Mapping[str, Served], port: int, parent: Connection) -> None:
    """Serve until the parent closes its end of the connection."""
    import ray
    from ray import serve

    fast_metrics = {"metrics_report_interval_ms": 200}
    context = ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        _system_config=fast_metrics,
    )
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config={"log_level": "ERROR"})
        targets = []
        for name, system in systems.items():
            parts = name_parts(name, system.fingerprint(LIMITS[name]))
            targets.append(serve.RunTarget(application(system, SCALES[name], LIMITS[name]), parts, None))
            targets.append(serve.RunTarget(gateway_application(SCALES[name], [[parts]]), name, f"/{name}"))
        serve.run_many(targets)
        for name in systems:
            wait_until_ready(f"http://127.0.0.1:{port}/{name}")
        parent.send((port, context["gcs_address"], ray.nodes()[0]["MetricsExportPort"]))
        parent.poll(None)
    finally:
        serve.shutdown()
        ray.shutdown()
