"""The step *correlate*: how well a system's cosines of sentence pairs agree with gold scores, in and across languages.

    measures.json          {"<row>": {"pearson": …, "spearman": …}}
    intervals.json         {"<row>": {"pearson": [low, high], …}}, 95 % bootstrap intervals over pairs
    matrix.json, .png      {"measures": {measure: {left: {right: value}}}}, and a heat map of Pearson
    per_query.parquet      lang (the row), query_id (the pair), measure, value: what a significance test compares
    similarities.parquet   pair_id, left, right (languages), gold, similarity
    vectors/<lang>.npy     float32 [N, 2, D]: the left and the right sentence of each pair

A *row* is a language (both sentences are in it), ``<left>/<right>`` for two different ones, and three means over these:
``mono`` over the languages, ``cross`` over the pairs of different languages, ``all`` over everything. A mean is of
correlations; its interval comes from resampling pairs, the same ones in every language. The value of a pair in
``per_query.parquet`` is its influence (``pipelines.correlation``), whose mean is the correlation, so that a paired test
over pairs compares the correlations of two systems.

Cost: the sentences of each language are encoded once, in workers; 1,000 resamples of 1,379 pairs take 0.1 s for each
pair of languages.

Legend: N pairs, L languages, R rows, D dimensions.
"""

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.artifact import Artifact, write_part
from cluster.errors import StepError
from cluster.step import FanOut
from cluster.storage import Place
from pipelines.correlation import MEASURES, bootstrap, correlate, influence, percentiles
from pipelines.encoder import EncoderConfig, open_encoder
from pipelines.evaluate import CROSS, MONO, OVER_LANGUAGES, PER_QUERY, POOL
from pipelines.matrix import plot
from pipelines.tables import BEST_SCORE, PAIRS

DIGITS = 6  # of a cosine: vectors are float32
FEWEST = 3  # pairs: over two, every correlation is 1 or -1

Cells = dict[tuple[str, str], np.ndarray]  # cosines [N] by the languages of the left and the right sentence


class CorrelateConfig(EncoderConfig):
    """An encoder, and the name of the evaluation set whose pairs it compares."""

    name: str


def correlate_pairs(config: CorrelateConfig, inputs: Mapping[str, Any], out: Place, fan_out: FanOut) -> dict[str, Any]:
    """Compare the sentences of ``pairs``, by language, and write the files above (a DirectoryWork).

    Inputs: ``pairs`` by language, and ``student`` unless the config names a model.

    Returns:
        ``{"set": name, "pairs": N, "measures": the content of measures.json}``.

    Raises:
        StepError: the languages hold different pairs, there are too few, or scores or cosines do not vary.
    """
    ids, gold = read_gold(inputs["pairs"])
    encoding = {**inputs, "pairs": dict(inputs["pairs"])}
    fan_out("language", EncodeSides, {"config": config, "inputs": encoding, "out": out}, sorted(inputs["pairs"]))
    vectors = {lang: _read_vectors(out, lang) for lang in inputs["pairs"]}
    cells = {(a, b): cosines(vectors[a][:, 0], vectors[b][:, 1]) for a in vectors for b in vectors}
    for (left, right), values in cells.items():
        if np.ptp(values) == 0:
            raise StepError(
                f"correlate {config.name}: all cosines of {left} with {right} are {values[0]:.3f}, which correlate "
                "with nothing: expected an encoder that tells sentences apart. Train it on, or with a lower train.lr"
            )
    rows = list_rows(cells)
    measured = {m: np.array([correlate(m, values, gold) for values in cells.values()]) for m in MEASURES}
    resampled = {m: bootstrap(m, list(cells.values()), gold) for m in MEASURES}
    measures = {row: {m: float(measured[m][at].mean()) for m in MEASURES} for row, at in rows.items()}
    intervals = {row: {m: percentiles(resampled[m][:, at].mean(1)) for m in MEASURES} for row, at in rows.items()}
    _write(out, "measures", measures)
    _write(out, "intervals", intervals)
    matrices = {m: {a: {b: measures[name_row(a, b)][m] for b in vectors} for a in vectors} for m in MEASURES}
    _write(out, "matrix", {"measures": matrices})
    first = MEASURES[0]
    picture = plot(f"{config.name}: {first}", matrices[first], ("right sentence", "left sentence"))
    (out / "matrix.png").write(picture)
    write_part(out / "per_query.parquet", _per_pair(ids, gold, cells, rows))
    write_part(out / "similarities.parquet", _similarities(ids, gold, cells))
    said = ", ".join(f"{row} {measures[row][first]:.3f}" for row in OVER_LANGUAGES if row in measures)
    return {"set": config.name, "pairs": len(ids), "measures": measures, "summary": f"{first}: {said}"}


class EncodeSides:
    """Encodes the pairs of one language, left and right sentences alike (a UnitWork)."""

    def __init__(self, config: CorrelateConfig, inputs: Mapping[str, Any], out: Place):
        self.config, self.inputs, self.out = config, inputs, out
        self.encoder = open_encoder(config, inputs)
        check_similarity(self.encoder.similarity)

    def __call__(self, unit: Any) -> dict[str, Any]:
        """Write ``vectors/<lang>.npy``; returns the number of pairs."""
        rows = self.inputs["pairs"][unit].read(["left", "right"])
        sides = [self.encoder.encode_queries(rows[side].to_pylist()) for side in ("left", "right")]
        vectors_N2D = np.stack([np.concatenate(side) for side in sides], axis=1)
        file = io.BytesIO()
        np.save(file, vectors_N2D.astype(np.float32))
        (self.out / "vectors" / f"{unit}.npy").write(file.getvalue())
        return {"pairs": len(vectors_N2D)}


def check_similarity(similarity: str) -> None:
    """Raise StepError where an encoder has more than one vector for a sentence."""
    if similarity != "dot":
        raise StepError(
            f"sentence pairs are compared by the cosine of two vectors, and this encoder compares by {similarity}: "
            'expected one vector per text. Use a dense student (train.student.kind = "dense")'
        )


def read_gold(pairs: Mapping[str, Artifact]) -> tuple[list[str], np.ndarray]:
    """The ids of the pairs, and their gold scores float64 [N] from 0 to 1.

    Raises:
        StepError: the languages hold different pairs, there are fewer than three, or all scores are equal.
    """
    (first, artifact), *others = pairs.items()
    rows = artifact.read(["pair_id", "score"])
    for lang, other in others:
        if not other.read(["pair_id", "score"]).equals(rows):
            raise StepError(
                f"{other.name} and {artifact.name} hold different pairs: expected the same ids and scores in {lang} "
                f"and {first}. Take both languages from one source and split"
            )
    gold = np.array(rows["score"].to_pylist(), np.float64) / BEST_SCORE
    if len(gold) < FEWEST or np.ptp(gold) == 0:
        raise StepError(
            f"{artifact.name}: a correlation needs at least {FEWEST} pairs whose scores are not all equal, got "
            f"{len(gold)}: choose another split"
        )
    return rows["pair_id"].to_pylist(), gold


def list_rows(cells: Mapping[tuple[str, str], Any]) -> dict[str, list[int]]:
    """The rows of the measures: for each the numbers of the cells that it is a mean of."""
    pairs = list(cells)
    mono = [at for at, (left, right) in enumerate(pairs) if left == right]
    cross = [at for at, (left, right) in enumerate(pairs) if left != right]
    means = {POOL: list(range(len(pairs))), MONO: mono} | ({CROSS: cross} if cross else {})
    return means | {name_row(*pair): [at] for at, pair in enumerate(pairs)}


def name_row(left: str, right: str) -> str:
    """The name of the row of two languages."""
    return left if left == right else f"{left}/{right}"


def cosines(left_ND: np.ndarray, right_ND: np.ndarray) -> np.ndarray:
    """The cosine of each left vector with the right one in the same place, float64 [N]; 0 for a vector of length 0.

    Rounded to ``DIGITS``: two equal sentences have a cosine of 1 but for rounding, which would decide their ranks.
    """
    left, right = left_ND.astype(np.float64), right_ND.astype(np.float64)
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    found: np.ndarray = np.round((left * right).sum(1) / np.where(lengths > 0, lengths, 1), DIGITS)
    return found


def read_intervals(correlation: Artifact) -> dict[str, dict[str, tuple[float | None, float | None]]]:
    """The content of intervals.json: row → measure → low and high."""
    content = json.loads((correlation.place / "intervals.json").read())
    return {row: {name: tuple(pair) for name, pair in of.items()} for row, of in content.items()}


def _read_vectors(out: Place, lang: str) -> np.ndarray:
    vectors: np.ndarray = np.load(io.BytesIO((out / "vectors" / f"{lang}.npy").read()))
    return vectors


def _write(out: Place, name: str, content: Any) -> None:
    (out / f"{name}.json").write(json.dumps(content, indent=1, ensure_ascii=False).encode())


def _per_pair(ids: list[str], gold_N: np.ndarray, cells: Cells, rows: Mapping[str, list[int]]) -> pa.Table:
    """The influence of each pair on the correlation of each row."""
    tables = []
    for measure in MEASURES:
        influences = [influence(measure, values, gold_N) for values in cells.values()]
        for row, at in rows.items():
            values_N = np.mean([influences[number] for number in at], axis=0)
            same = {"lang": [row] * len(ids), "query_id": ids, "measure": [measure] * len(ids)}
            tables.append(pa.table({**same, "value": values_N}, schema=PER_QUERY))
    return pa.concat_tables(tables)


def _similarities(ids: list[str], gold_N: np.ndarray, cells: Cells) -> pa.Table:
    scores = pa.array(gold_N * BEST_SCORE, PAIRS.schema.field("score").type)
    return pa.concat_tables(
        pa.table(
            {
                "pair_id": ids,
                "left": [left] * len(ids),
                "right": [right] * len(ids),
                "gold": scores,
                "similarity": pa.array(values, pa.float32()),
            }
        )
        for (left, right), values in cells.items()
    )
