"""The step *calibration*: how sharp a teacher is, how far teachers agree, and how far the student agrees with them.

Training compares softmaxes over ``ways`` passages, drawn from the first ``pool`` of a query. A teacher that puts all on
one passage teaches labels, one that cannot tell them apart teaches nothing. So, per teacher,

    p = softmax(scores / T)        T as in train.loss: temperature / alpha
    H = -sum p ln p                entropy, nats
    exp(H)                         the effective number of passages: from 1 to ``ways``

is given at several T, and the T at which the mean of exp(H) is half the ways. Between teachers Kendall's tau-b, and,
where a student was searched with, per language its tau and KL(teacher‖student) on the documents that both have scored.

Written are ``calibration.json`` and ``calibration.png``. Cost: seconds; at most ``queries`` rows of a table are read.

Legend: Q queries, W ways, K documents of a query.
"""

import io
import json
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np
from pydantic import Field

from cluster.artifact import Artifact
from cluster.component import Component
from cluster.errors import StepError
from cluster.step import FanOut
from cluster.storage import Place
from pipelines.docstore import RowStore

BINS = 10  # of the histogram of the entropy, from 0 to ln(ways)
WIDEST = 1e4  # T is looked for between the mean range of a query's scores divided, and multiplied, by this


class CalibrationConfig(Component):
    """What a training draws (``ways`` of the best ``pool``), how it scales both sides, and how many queries to look at.

    ``alpha`` multiplies the teacher's scores and ``temperature`` divides both sides' (as ``train.loss`` has them) where
    the student is compared.
    """

    ways: int = Field(6, ge=2)
    pool: int = Field(50, ge=2)
    temperatures: tuple[float, ...] = Field((0.25, 0.5, 1.0, 2.0, 4.0), min_length=1)
    alpha: float = Field(1.0, gt=0)
    temperature: float = Field(1.0, gt=0)
    queries: int = Field(1000, ge=1)
    seed: int = 0


def calibrate(config: CalibrationConfig, inputs: Mapping[str, Any], out: Place, fan_out: FanOut) -> dict[str, Any]:
    """DirectoryWork: RANKINGS of teachers (``inputs["scores"]``, by name), and of the student on dev
    (``inputs["students"]``, by language) with a teacher's of the same documents (``inputs["dev"]``) -> the report.

    Raises:
        StepError: a teacher has scored fewer documents than ``ways`` for every query.
    """
    teachers: Mapping[str, Artifact] = inputs["scores"]
    report: dict[str, Any] = {
        "ways": config.ways,
        "pool": config.pool,
        "teachers": {name: describe_teacher(artifact, config) for name, artifact in teachers.items()},
        "tau": {
            f"{one} and {other}": _compare(teachers[one], teachers[other], config)
            for one, other in combinations(teachers, 2)
        },
        "students": {
            lang: _compare(inputs["dev"][lang], student, config) for lang, student in inputs.get("students", {}).items()
        },
    }
    (out / "calibration.json").write(json.dumps(report, indent=1, ensure_ascii=False).encode())
    (out / "calibration.png").write(_plot(report))
    halves = {name: teacher["half_temperature"] for name, teacher in report["teachers"].items()}
    summary = ", ".join(f"{name} {'none' if half is None else f'{half:.2g}'}" for name, half in halves.items())
    return {"half_temperature": halves, "summary": f"half the ways at T = {summary}"}


def describe_teacher(artifact: Artifact, config: CalibrationConfig) -> dict[str, Any]:
    """Entropies of a teacher's distributions at each temperature, and the temperature of half the ways."""
    rows = list(_sample(RowStore.open(artifact), config))
    random = np.random.default_rng(config.seed)
    drawn = [scores for row in rows if (scores := _draw(row, config, random)) is not None]
    if not drawn:
        raise StepError(
            f"{artifact.name}: no query has {config.ways} scored documents: lower train.ways, or raise select.k"
        )
    scores_QW = np.array(drawn)
    at = {}
    for temperature in config.temperatures:
        entropy_Q = entropies(scores_QW, temperature)
        counts, _ = np.histogram(entropy_Q, BINS, (0, np.log(config.ways) + 1e-9))
        at[f"{temperature:g}"] = {
            "entropy": float(entropy_Q.mean()),
            "passages": float(np.exp(entropy_Q).mean()),
            "histogram": counts.tolist(),
        }
    return {
        "queries": len(drawn),
        "too_short": len(rows) - len(drawn),
        "temperatures": at,
        "half_temperature": find_temperature(scores_QW, config.ways / 2),
    }


def entropies(scores_QW: np.ndarray, temperature: float) -> np.ndarray:
    """The entropy of softmax(scores / T) of each query, nats [Q]."""
    from scipy.special import softmax
    from scipy.stats import entropy

    return np.asarray(entropy(softmax(scores_QW / temperature, axis=1), axis=1))


def find_temperature(scores_QW: np.ndarray, passages: float) -> float | None:
    """The T at which the mean effective number of passages is ``passages``; None where no T within reach gives it: the
    scores are all equal, or ``passages`` is not between 1 (more, where the best tie) and W."""
    from scipy.optimize import brentq

    def excess(log_temperature: float) -> float:
        return float(np.exp(entropies(scores_QW, float(np.exp(log_temperature)))).mean()) - passages

    middle = float(np.ptp(scores_QW, axis=1).mean())
    if not middle:
        return None
    least, greatest = np.log(middle / WIDEST), np.log(middle * WIDEST)
    if not excess(least) < 0 < excess(greatest):
        return None
    return float(np.exp(brentq(excess, least, greatest)))


def _compare(teacher: Artifact, other: Artifact, config: CalibrationConfig) -> dict[str, Any]:
    """Kendall's tau-b and KL(teacher‖other) over the documents of a query that both have scored, means over queries.

    Queries with fewer than two such documents, or where one side scores all alike (no tau), are left out.
    """
    from scipy.stats import kendalltau

    theirs = RowStore.open(other)
    taus, divergences = [], []
    for row in _sample(RowStore.open(teacher), config):
        position = int(theirs.positions([row["query_id"]])[0])
        if position < 0:
            continue
        found = theirs.row_at(position)
        scores = dict(zip(found["doc_ids"], found["scores"], strict=True))
        shared = [(s, scores[d]) for d, s in zip(row["doc_ids"], row["scores"], strict=True) if d in scores]
        mine_K, theirs_K = np.array(shared[: config.pool], np.float64).reshape(-1, 2).T
        if len(mine_K) >= 2 and np.ptp(mine_K) and np.ptp(theirs_K):
            taus.append(float(kendalltau(mine_K, theirs_K).statistic))
            divergences.append(divergence(mine_K * config.alpha / config.temperature, theirs_K / config.temperature))
    if not taus:
        return {"queries": 0, "tau": None, "kl": None}
    return {"queries": len(taus), "tau": float(np.mean(taus)), "kl": float(np.mean(divergences))}


def divergence(teacher_K: np.ndarray, student_K: np.ndarray) -> float:
    """KL(teacher‖student) of the softmaxes of two lists of scores, nats."""
    from scipy.special import log_softmax

    p_K, q_K = log_softmax(teacher_K), log_softmax(student_K)
    return float((np.exp(p_K) * (p_K - q_K)).sum())


def _sample(store: RowStore, config: CalibrationConfig) -> Iterator[dict[str, Any]]:
    """At most ``queries`` rows, drawn at random, in the order of the table."""
    random = np.random.default_rng(config.seed)
    for position in np.sort(random.choice(len(store), min(config.queries, len(store)), replace=False)).tolist():
        yield store.row_at(position)


def _draw(row: dict[str, Any], config: CalibrationConfig, random: np.random.Generator) -> np.ndarray | None:
    """The scores of ``ways`` of a row's best ``pool`` documents, drawn at random; None where there are fewer."""
    scores = row["scores"][: config.pool]
    return None if len(scores) < config.ways else random.choice(scores, config.ways, replace=False)


def _plot(report: Mapping[str, Any]) -> bytes:
    """Left the effective number of passages by temperature, right tau between teachers and with the student."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left: Any
    right: Any
    left, right = figure.subplots(1, 2)
    for name, teacher in report["teachers"].items():
        points = sorted((float(t), value["passages"]) for t, value in teacher["temperatures"].items())
        (line,) = left.plot([t for t, _ in points], [n for _, n in points], "o-", label=name)
        if teacher["half_temperature"]:
            left.plot(teacher["half_temperature"], report["ways"] / 2, "x", color=line.get_color(), markersize=10)
    left.axhline(report["ways"] / 2, color="grey", linewidth=1, linestyle="--")
    left.set(
        xscale="log", xlabel="temperature", ylabel=f"effective passages of {report['ways']}", ylim=(1, report["ways"])
    )
    ticks = sorted({float(t) for teacher in report["teachers"].values() for t in teacher["temperatures"]})
    left.set_xticks(ticks, labels=[f"{t:g}" for t in ticks], rotation=45)
    left.minorticks_off()
    left.legend()
    student = {f"student, {lang}": found for lang, found in report["students"].items()}
    taus = {name: found["tau"] for name, found in {**report["tau"], **student}.items() if found["tau"] is not None}
    right.barh(list(taus), list(taus.values()))
    right.set(xlabel="Kendall's tau", xlim=(min(0, *taus.values()) if taus else 0, 1))
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=120)
    return image.getvalue()
