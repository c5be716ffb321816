"""Scores of made-up experiments whose truth is known."""

import numpy as np

from pipelines.experiment.results import Scores


def scores(variant, values, measure="nDCG@20", lang="all", seeds=("1",), prefix="fold0/q"):
    """Scores of questions q0, q1, … from values [Q] or [Q, S]."""
    values_QS = np.asarray(values, float).reshape(len(values), -1)
    of = {f"{prefix}{i}": tuple(row.tolist()) for i, row in enumerate(values_QS)}
    return Scores(variant=variant, measure=measure, lang=lang, seeds=seeds, values=of)


def pair(difference, n=50, deviation=0.1, seed=0):
    """Two variants' values: b at about 0.5, and a above it by ``difference`` on average."""
    rng = np.random.default_rng(seed)
    b = rng.uniform(0.2, 0.8, n)
    return b + rng.normal(difference, deviation, n), b


def apart(difference, n=50, deviation=0.1, seed=0):
    """As ``pair``, but a's mean is above b's by ``difference`` and their deviation is ``deviation``, exactly."""
    rng = np.random.default_rng(seed)
    b, noise = rng.uniform(0.2, 0.8, n), rng.normal(size=n)
    return b + difference + deviation * (noise - noise.mean()) / noise.std(ddof=1), b
