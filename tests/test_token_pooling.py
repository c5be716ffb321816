"""Token pooling: known clusters are merged, counts are those asked for, rankings survive; and the recipe's key."""

import numpy as np
import pytest
from pydantic import ValidationError

from pipelines.encode import EncodeConfig, _row
from pipelines.token_pooling import pool_vectors
from tests.shards import oracle, unit


def test_pairs_of_like_tokens_become_their_mean() -> None:
    """By hand: the sum of (1, 0) and (0.8, 0.6) is (1.8, 0.6), of norm √3.6; the other two are the same."""
    made = pool_vectors(np.array([[1, 0], [0, -1], [0.8, 0.6], [0, -1]]), 2)
    np.testing.assert_allclose(made, [[1.8 / 3.6**0.5, 0.6 / 3.6**0.5], [0, -1]], atol=1e-6)


@pytest.mark.parametrize(
    ("tokens", "factor", "expected"), [(0, 2, 0), (1, 3, 1), (5, 1, 5), (5, 2, 3), (6, 3, 2), (2, 9, 1)]
)
def test_counts_are_rounded_up(tokens: int, factor: int, expected: int) -> None:
    vectors = unit(np.random.default_rng(0).normal(size=(tokens, 8))) if tokens else np.zeros((0, 8))
    made = pool_vectors(vectors, factor)
    assert made.shape == (expected, 8)
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, rtol=1e-5)


def test_zero_vectors_and_repeated_ones_are_pooled_without_a_fault() -> None:
    made = pool_vectors(np.concatenate([np.zeros((4, 8)), np.tile(np.eye(8)[:1], (4, 1))]), 2)
    assert len(made) <= 4
    assert np.isfinite(made).all()
    assert not pool_vectors(np.zeros((3, 8)), 3).any()


def test_half_the_vectors_rank_almost_as_all_do() -> None:
    rng = np.random.default_rng(0)
    topics = unit(rng.normal(size=(40, 32)))
    docs = [unit(topics[rng.choice(40, 8)].repeat(4, axis=0) + 0.1 * rng.normal(size=(32, 32))) for _ in range(60)]
    whole = [(str(n), [doc]) for n, doc in enumerate(docs)]
    pooled = [(str(n), [pool_vectors(doc, 3)]) for n, doc in enumerate(docs)]
    queries = [unit(docs[n][rng.choice(32, 4)] + 0.1 * rng.normal(size=(4, 32))) for n in range(20)]
    best = [(oracle(q, whole, 1)[0][0], oracle(q, pooled, 1)[0][0]) for q in queries]
    assert np.mean([one == other for one, other in best]) > 0.9


def test_a_row_keeps_the_counts_of_its_pooled_passages() -> None:
    passages = [unit(np.random.default_rng(n).normal(size=(n, 4))).astype(np.float32) for n in (5, 2)]
    row = _row(passages, 2)
    assert row["tokens"] == [3, 1]
    vectors = np.frombuffer(row["vectors"], np.float16).reshape(4, 4)
    np.testing.assert_allclose(vectors[:3], pool_vectors(passages[0].astype(np.float16), 2), atol=1e-3)


def test_queries_are_not_pooled() -> None:
    with pytest.raises(ValidationError, match="vectors of queries are not pooled"):
        EncodeConfig(role="queries", model="minilm", pool=2)
