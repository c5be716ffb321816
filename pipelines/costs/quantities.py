"""What each step of a plan handles: rows, parts, texts, and the units that its time is proportional to.

By the law of the system a row in is a row out: a step that maps a table has the rows and the parts of that table, and a
directory step those of what it reads. ``UNITS`` says for each work what its time grows with.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import ceil, log2
from typing import Any

from cluster.step import Step
from pipelines.costs.amounts import Amount, Amounts, SizeOf
from pipelines.costs.encoders import Encoder, encoder_of_step
from pipelines.costs.index_operations import plaid_operations, scored_of
from pipelines.costs.sizes import Size

UNIT_OF_SEARCH = 1 << 13  # query rows of a unit of ``search_shards``
QUESTION_TOKENS = 10.0  # of a question that is written
# what a unit is, by work; where an index decides, by work:kind
UNITS = {
    "IngestDocs": "rows", "IngestQueries": "rows", "IngestQrels": "rows", "IngestPairs": "rows", "ReadScores": "rows",
    "Translate": "rows", "JoinTranslations": "rows", "Gate": "rows", "Synthesise": "rows", "Keep": "rows",
    "Cap": "rows", "Encode": "rows", "MergeScores": "rows", "WithPositives": "rows", "MineNegatives": "rows",
    "Score": "pairs", "Fuse": "rows",
    "build_start": "documents",
    "build_index:plaid": "Gflop", "build_index:exact": "documents", "build_index:faiss": "documents",
    "build_index:bm25": "documents",
    "Search:plaid": "candidates", "Search:exact": "documents scored", "Search:bm25": "documents scored",
    "Search:faiss": "rows",
    "search_shards": "candidates", "learn_weights": "rankings",
    "train": "steps",
    "evaluate": "rankings", "correlate_pairs": "rows", "build_matrix": "evaluations",
    "find_examples": "questions",
}  # fmt: skip


def measure(steps: Sequence[Step], size_of: SizeOf) -> Amounts:
    """The amount of each step, by its id. ``steps`` has inputs before what reads them; ``size_of`` gives the rows of
    what is ingested."""
    amounts: Amounts = {}
    for step in steps:
        found = {path: amounts[parent.id] for path, parent in step.parents.items()}
        amounts[step.id] = _measure_step(step, found, size_of)
    return amounts


def work_name(step: Step) -> str:
    """The name of a step's work; that of a calibration's ingest is the name of the work it stands for."""
    return str(step.work.__name__).removeprefix("_Sampled")


def ingest_config(step: Step) -> Any:
    """The config of an ingest step, also of a calibration's."""
    return getattr(step.config, "ingest", step.config)


def index_kind(step: Step) -> str:
    """The kind of index that a step builds or searches; empty where it does neither."""
    built = step if hasattr(step.config, "index") else step.parents.get("index")
    return str(built.config.index.kind) if built is not None and hasattr(built.config, "index") else ""


def unit_of(step: Step) -> str:
    """What the time of a step grows with."""
    name = work_name(step)
    return UNITS.get(name) or UNITS.get(f"{name}:{index_kind(step)}") or "rows"


def _measure_step(step: Step, inputs: Mapping[str, Amount], size_of: SizeOf) -> Amount:
    name = work_name(step)
    unit = unit_of(step)
    if not step.rows and step.table:
        return replace(_measure_ingest(step, size_of(step)), unit=unit)
    if step.rows:
        first = inputs[step.rows[0]]
        base = replace(first, tasks=first.files, units=first.good_rows, unit=unit, read=0.0, written=0.0, extra={})
        return _ROWS.get(name, lambda *_: base)(step, base, inputs)
    return replace(_DIRECTORIES.get(name, _of_parents)(step, inputs), unit=unit)


def _measure_ingest(step: Step, size: Size) -> Amount:
    per_part = ingest_config(step).rows_per_part
    depth = 50 if step.table and step.table.name == "rankings" else 0
    files = max(1, ceil(size.rows / per_part))
    return Amount(size.rows, files, 1, float(size.rows), tokens=size.tokens, bytes=size.bytes, depth=depth)


def _translate(step: Step, base: Amount, inputs: Mapping[str, Amount]) -> Amount:
    """A text of so many tokens becomes one of as many. A second stage gets what the first left, which is little."""
    if len(step.rows) > 1:
        base = replace(base, units=base.rows * _LEFT)
    return replace(base, read=base.units * base.tokens, written=base.units * base.tokens)


_LEFT = 0.05  # share of the rows that a first stage of translation leaves to the next: an assumption


def _synthesise(step: Step, base: Amount, inputs: Mapping[str, Amount]) -> Amount:
    written = base.rows * QUESTION_TOKENS
    chosen = getattr(step.config.synthesis, "passages", None) or base.rows  # type: ignore[attr-defined]
    share = min(1.0, chosen / max(1, base.rows))
    return replace(
        base, good=share, units=base.rows * share, read=base.rows * base.tokens * share, written=written * share,
        tokens=QUESTION_TOKENS, bytes=QUESTION_TOKENS * 5,
    )  # fmt: skip


def _cap(step: Step, base: Amount, inputs: Mapping[str, Amount]) -> Amount:
    """Questions up to the cap; those beyond it are rejected."""
    return replace(base, good=min(base.good, step.config.most / max(1, base.rows)))  # type: ignore[attr-defined]


def _with_positives(step: Step, base: Amount, inputs: Mapping[str, Amount]) -> Amount:
    """As much of a selection as ``pipelines.positives`` keeps, and one relevant passage."""
    kept = min(base.depth, step.config.depth + 2)  # type: ignore[attr-defined]
    return replace(base, depth=kept + 1)


def _score(step: Step, base: Amount, inputs: Mapping[str, Amount]) -> Amount:
    """Pairs: each question with each of its documents, which a cross-encoder reads together."""
    depth = min(base.depth, getattr(step.config, "depth", None) or base.depth)
    pairs = base.good_rows * depth
    docs, queries = inputs["docs"], inputs["queries"]
    kind = step.config.scorer.kind  # type: ignore[attr-defined]
    read = pairs * (docs.tokens + queries.tokens)
    if kind == "dense":  # each text of a part once; at most all of them in each part
        distinct = min(pairs / max(1, base.files), float(docs.rows)) * base.files
        read = distinct * docs.tokens + queries.good_rows * queries.tokens
    return replace(base, units=pairs, read=0.0 if kind == "bm25" else read, depth=depth)


def _encode(step: Step, base: Amount, inputs: Mapping[str, Amount]) -> Amount:
    """Vectors: of a document those of its passages, windows of the recipe's length that overlap."""
    encoder = encoder_of_step(step)
    is_query = step.config.role == "queries"  # type: ignore[attr-defined]
    tokens, passages = _passages(step, base.tokens)
    read = float(encoder.query_length or tokens) if is_query else tokens
    vectors = (read if encoder.per_token else float(passages)) * base.good
    return replace(base, tokens=vectors, bytes=vectors * encoder.dim * 2, read=base.good_rows * read)


def _passages(step: Step, tokens: float) -> tuple[float, int]:
    """The tokens that are encoded of a text, and its windows."""
    length, stride = getattr(step.config, "passage_length", None), getattr(step.config, "passage_stride", None)
    if not length or not stride or tokens <= length:
        return tokens, 1
    windows = 1 + ceil((tokens - length) / stride)
    return tokens + (windows - 1) * (length - stride), windows


def _search(step: Step, base: Amount, inputs: Mapping[str, Amount]) -> Amount:
    """What is scored: every document, or as many candidates as PLAID keeps."""
    options, index = step.config.options, inputs["index"]  # type: ignore[attr-defined]
    docs = index.rows / max(1.0, index.extra.get("languages", 1.0))
    groups = inputs["found"].extra.get("groups", 1.0) if "found" in inputs else 1.0
    scored = 1.0 if groups > 1 else scored_of(index_kind(step), docs, options)
    return replace(base, units=base.good_rows * scored, depth=int(min(options.k, docs)), extra={"groups": groups})


_ROWS: dict[str, Callable[[Step, Amount, Mapping[str, Amount]], Amount]] = {
    "Translate": _translate, "JoinTranslations": _translate, "Synthesise": _synthesise, "Score": _score,
    "Encode": _encode, "Search": _search, "Cap": _cap,
    "WithPositives": _with_positives,
}  # fmt: skip


def _of_parents(step: Step, inputs: Mapping[str, Amount]) -> Amount:
    """What a directory is made of: the rows of all that it reads."""
    rows = sum(amount.rows for amount in inputs.values())
    return Amount(rows, units=float(rows))


def _start(step: Step, inputs: Mapping[str, Amount]) -> Amount:
    docs = sum(amount.rows for path, amount in inputs.items() if ".docs." in path)
    return Amount(docs, units=float(docs or 1))


def _index(step: Step, inputs: Mapping[str, Amount]) -> Amount:
    """Shards of ``shard_rows`` documents; of PLAID the number of its centroids (``pipelines.indexes.plaid.build``)."""
    rows = sum(amount.rows for amount in inputs.values())
    per_shard = step.config.shard_rows  # type: ignore[attr-defined]
    shards = sum(max(1, ceil(amount.rows / per_shard)) for amount in inputs.values())
    tokens = sum(amount.rows * amount.tokens for amount in inputs.values())
    of_a_shard = sum(a.rows * a.tokens / max(1, ceil(a.rows / per_shard)) for a in inputs.values())
    extra = {"languages": float(len(inputs)), "tokens": tokens, "shards": float(shards)}
    mean = tokens / max(1, rows)
    vectors = max((amount.bytes / amount.tokens for amount in inputs.values() if amount.tokens), default=0.0)
    units = float(rows)
    if index_kind(step) == "plaid":
        centroids = float(step.config.index.centroids or 2 ** int(log2(max(1.0, 16 * of_a_shard**0.5))))  # type: ignore[attr-defined]
        learnt, assigned = plaid_operations(step, rows, tokens, centroids, vectors / 2)
        units = (learnt + assigned) / 1e9
        extra |= {"centroids": centroids, "serial": learnt / max(1.0, learnt + assigned)}
    return Amount(rows, 0, shards, units, tokens=mean, bytes=vectors, extra=extra)


def _search_shards(step: Step, inputs: Mapping[str, Amount]) -> Amount:
    """Nothing where the shards of a language fit one worker; else each group is searched for runs of the questions."""
    from pipelines.costs.storage import bytes_of_index

    index, queries = inputs["index"], inputs["rows"]
    languages = index.extra.get("languages", 1.0)
    size = bytes_of_index(step.parents["index"], index) / languages
    groups = float(ceil(size / (step.config.group_gb * 1e9)))  # type: ignore[attr-defined]
    if groups <= 1:
        return Amount(0, tasks=0, extra={"groups": 1.0})
    scored = scored_of(index_kind(step), index.rows / languages, step.config.options)  # type: ignore[attr-defined]
    asked = queries.good_rows
    tasks = int(groups * languages * ceil(asked / UNIT_OF_SEARCH))
    depth = int(step.config.options.k * languages)  # type: ignore[attr-defined]
    units = asked * scored * languages
    return Amount(round(asked), 0, tasks, units, depth=depth, extra={"groups": groups})


def _train(step: Step, inputs: Mapping[str, Amount]) -> Amount:
    """Steps; the tokens of all batches; and the stops, at which the student is saved, or measured: as many as they
    measure documents, where they do."""
    config = step.config.train  # type: ignore[attr-defined]
    if config.loss.reads == "pairs":
        return _train_on_pairs(config, inputs)
    docs = [amount for path, amount in inputs.items() if ".docs." in path and path.startswith("data.")]
    queries = {path: amount for path, amount in inputs.items() if path.startswith("data.") and ".queries" in path}
    encoder: Encoder = encoder_of_step(step)
    of_doc = min(_mean(docs), encoder.doc_length or _mean(docs))
    of_query = (encoder.query_length or _mean(list(queries.values()))) if queries else 0.0
    langs = len({path.rpartition(".")[2] for path in inputs if path.startswith("data.") and ".docs." in path})
    entries = config.batch * (langs if config.mixing == "round_robin_entries" else 1)
    read = config.steps * entries * (of_query + (config.ways if queries else 1) * of_doc)
    pool = sum(amount.rows for path, amount in inputs.items() if path.startswith("dev.docs."))
    # a data set that is asked in several languages has the same questions in each
    rows = {path.partition(".queries")[0]: round(amount.good_rows) for path, amount in queries.items()}
    extra = _stops(config, min(pool, config.validation.max_docs))
    return Amount(sum(rows.values()), 0, 1, float(config.steps), tokens=of_doc, read=read, extra=extra)


def _train_on_pairs(config: Any, inputs: Mapping[str, Amount]) -> Amount:
    """As ``_train``: both sentences of each pair of a batch."""
    pairs = {path: amount for path, amount in inputs.items() if path.startswith("data.")}
    dev = [amount.rows for path, amount in inputs.items() if path.startswith("dev.")]
    rows = {path.partition(".pairs")[0]: a.rows for path, a in pairs.items()}
    mean = _mean(list(pairs.values()))
    extra = _stops(config, sum(min(count, config.validation.max_queries) for count in dev))
    read = config.steps * config.batch * mean
    return Amount(sum(rows.values()), 0, 1, float(config.steps), tokens=mean, read=read, extra=extra)


def _stops(config: Any, pool: int) -> dict[str, float]:
    """How often a training is saved, and how much it measures then: documents, or pairs in a language; 0: nothing."""
    size, every = (pool, config.validation.every) if pool else (1, config.checkpoint_every)
    count = -(-config.steps // every) + bool(pool)  # it is measured before the first step too, and always at the end
    return {"stops": float(count * size), "stop_size": float(size)}


def _mean(amounts: Sequence[Amount]) -> float:
    return sum(amount.tokens for amount in amounts) / max(1, len(amounts))


def _evaluate(step: Step, inputs: Mapping[str, Amount]) -> Amount:
    rows = sum(amount.rows for path, amount in inputs.items() if path.startswith(("rankings.", "pairs.")))
    read = sum(amount.rows * amount.tokens for path, amount in inputs.items() if path.startswith("pairs."))
    return Amount(rows, units=float(rows), read=read)


def _examples(step: Step, inputs: Mapping[str, Amount]) -> Amount:
    count = len(step.config.queries)  # type: ignore[attr-defined]
    return Amount(count, units=float(count))


_DIRECTORIES: dict[str, Callable[[Step, Mapping[str, Amount]], Amount]] = {
    "build_start": _start, "build_index": _index, "search_shards": _search_shards, "train": _train,
    "evaluate": _evaluate, "learn_weights": _evaluate, "correlate_pairs": _evaluate, "find_examples": _examples,
    "build_matrix": lambda step, inputs: Amount(len(inputs), units=float(len(inputs))),
}  # fmt: skip
