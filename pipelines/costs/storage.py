"""What a step keeps, in bytes, and how often it asks the object store: from what the works and ``cluster.tasks`` write.

Text is compressed by zstd, to 0.45 of its bytes in a part with XQuAD's English paragraphs (0.30 of the atlas's, which
repeat); vectors are not compressible. The bytes of ids, rankings and judgements are assumptions.
"""

from dataclasses import dataclass

from cluster.step import Step
from pipelines.costs.amounts import Amount
from pipelines.costs.encoders import encoder_of_step
from pipelines.costs.quantities import index_kind, work_name

TEXT_KEPT = 0.45  # bytes in a part per byte of text
ID_BYTES = 8.0  # of an id, compressed
RANKED_BYTES = 8.0  # of one document of a ranking: its id and its score, compressed
QREL_BYTES = 12.0
TERMS_PER_TOKEN = 0.6  # different terms of a text per token, for BM25
UPLOAD_PART = 10 << 20  # bytes of one request of a multipart upload (pyarrow's S3 file system)


def bytes_of(step: Step, amount: Amount) -> float:
    """Bytes of a finished artifact."""
    if work_name(step) == "build_index":
        return bytes_of_index(step, amount)
    if work_name(step) in ("train", "build_start"):
        parameters = encoder_of_step(step).parameters
        return 2 * 4 * parameters.total if parameters else 0.0  # two students in float32
    if work_name(step) == "search_shards":
        return amount.rows * amount.depth * amount.extra.get("groups", 1.0) * RANKED_BYTES
    if step.table is None:
        return 0.0
    per_row = {
        "docs": ID_BYTES + amount.bytes * TEXT_KEPT,
        "queries": ID_BYTES + amount.bytes * TEXT_KEPT * amount.good,
        "vectors": ID_BYTES + amount.bytes,
        "rankings": ID_BYTES + amount.depth * RANKED_BYTES * amount.good,
        "qrels": QREL_BYTES,
    }
    return amount.rows * per_row.get(step.table.name, ID_BYTES)


def bytes_of_index(step: Step, amount: Amount) -> float:
    """Bytes of an index: of PLAID a code of 2 bytes, the residual and about 2 bytes in a list for each token."""
    kind, tokens = index_kind(step), amount.rows * amount.tokens
    dim = amount.bytes / 2
    per_doc = amount.rows * ID_BYTES
    if kind == "plaid":
        return per_doc + tokens * (dim * step.config.index.bits / 8 + 2 + 2)  # type: ignore[attr-defined]
    if kind == "bm25":
        return per_doc + tokens * TERMS_PER_TOKEN * 8
    return per_doc + tokens * dim * (2 if kind == "exact" else 4)


@dataclass(frozen=True)
class Requests:
    """Requests to an object store, by their price: those that write or list, and those that read."""

    puts: float
    gets: float


# Counted on a store (tests/test_costs_requests.py) in runs of 4 and of 16 parts, listings with the writes: of a part
# its receipt, the note of the attempt, two looks at the lease, itself; of a step its lease, its manifest, cleaning up
PUTS_PER_PART, GETS_PER_PART, GETS_PER_INPUT = 9.0, 6.0, 3.0
PUTS_PER_STEP, GETS_PER_STEP = 18.0, 14.0


def requests_of(step: Step, amount: Amount, size: float) -> Requests:
    """Requests of a step: so many per part, per part of an input and per step, and those of files beyond one upload."""
    files = max(1, amount.files) if step.table else max(1, amount.tasks)
    uploads = size // UPLOAD_PART
    inputs = max(1, len(step.rows)) * files
    return Requests(
        PUTS_PER_STEP + PUTS_PER_PART * files + uploads, GETS_PER_STEP + GETS_PER_PART * files + GETS_PER_INPUT * inputs
    )


def endpoint_requests(step: Step, amount: Amount) -> float:
    """Questions to an endpoint of a language model: a row each, a pair each for a scorer."""
    for name in ("translator", "synthesis", "scorer"):
        if getattr(getattr(step.config, name, None), "kind", "") == "openai":
            return amount.units
    return 0.0
