"""Losses, against scipy and plain loops."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from scipy.special import log_softmax, softmax
from scipy.stats import entropy

from pipelines.training.losses import AnyLoss, KullbackLeibler, MeanSquaredError, language_consistency

floats = st.floats(-20, 20, width=32)


@st.composite
def score_pairs(draw):
    n, w = draw(st.integers(1, 5)), draw(st.integers(2, 7))
    grid = st.lists(st.lists(floats, min_size=w, max_size=w), min_size=n, max_size=n)
    return np.array(draw(grid), np.float32), np.array(draw(grid), np.float32)


@given(score_pairs(), st.floats(0.5, 2), st.floats(0.5, 4))
@settings(max_examples=60, deadline=None)
def test_kl_equals_scipy_entropy(pair, alpha, temperature):
    student, teacher = pair
    t = softmax(teacher.astype(np.float64) * alpha / temperature, -1)
    s = softmax(student.astype(np.float64) / temperature, -1)
    options = {"alpha": alpha, "temperature": temperature}
    forward = KullbackLeibler(**options).per_entry(torch.tensor(student), torch.tensor(teacher))
    np.testing.assert_allclose(forward, entropy(t, s, axis=-1), rtol=1e-3, atol=2e-5)
    reverse = KullbackLeibler(direction="student_teacher", **options)
    np.testing.assert_allclose(
        reverse.per_entry(torch.tensor(student), torch.tensor(teacher)), entropy(s, t, axis=-1), rtol=1e-3, atol=2e-5
    )


@given(score_pairs())
@settings(max_examples=40, deadline=None)
def test_mse_is_between_log_softmaxes(pair):
    student, teacher = pair
    expected = ((log_softmax(student, -1) - log_softmax(teacher, -1)) ** 2).mean(-1)
    loss = MeanSquaredError().per_entry(torch.tensor(student), torch.tensor(teacher))
    np.testing.assert_allclose(loss, expected, rtol=1e-3, atol=1e-4)


@given(st.integers(1, 4), st.integers(2, 4), st.integers(2, 5), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_consistency_is_the_mean_over_distinct_pairs(queries, languages, ways, seed):
    scores = np.random.default_rng(seed).normal(size=(queries, languages, ways)) * 4
    p = softmax(scores, -1)
    expected = [
        np.mean([(entropy(q[a], q[b]) + entropy(q[b], q[a])) / 2 for a, b in combinations(range(languages), 2)])
        for q in p
    ]
    np.testing.assert_allclose(language_consistency(torch.tensor(scores)), expected, rtol=1e-4, atol=1e-6)


def released_consistency(logs_NW, languages):
    """The term as the released code has it: entries language-major, each language's log-softmaxes in one long column,
    the mean over the pairs i ≤ j of the symmetrised divergence of two columns, averaged over their rows."""
    columns = logs_NW.reshape(languages, -1).T  # [queries · ways, languages]
    divergence = torch.nn.KLDivLoss(reduction="batchmean", log_target=True)
    pairs = [(i, j) for i in range(languages) for j in range(i, languages)]
    total = 0.0
    for i, j in pairs:
        a, b = columns[:, i], columns[:, j]
        total = total + 0.5 * divergence(a, b) + 0.5 * divergence(b, a)
    return total / len(pairs)


@pytest.mark.parametrize(("queries", "languages", "ways"), [(4, 3, 2), (1, 2, 6), (5, 4, 3)])
def test_the_released_consistency_term_is_ours_at_the_weight_that_the_config_names(queries, languages, ways):
    scores_QLW = torch.randn(queries, languages, ways, generator=torch.Generator().manual_seed(0)) * 4
    logs_NW = scores_QLW.transpose(0, 1).reshape(languages * queries, ways).log_softmax(-1)
    weight = (languages - 1) / ((languages + 1) * ways)
    torch.testing.assert_close(
        weight * language_consistency(scores_QLW).mean(), released_consistency(logs_NW, languages)
    )


def test_zero_exactly_where_both_agree():
    scores = torch.randn(3, 6)
    assert KullbackLeibler().per_entry(scores, scores + 5).abs().max() < 1e-6  # a shift is no difference
    assert language_consistency(scores[:, None].expand(3, 4, 6)).abs().max() == 0
    assert language_consistency(torch.randn(2, 1, 6)).tolist() == [0, 0]


def test_gradient_reaches_the_student_alone_and_half_precision_is_widened():
    student = torch.randn(4, 6, dtype=torch.bfloat16, requires_grad=True)
    teacher = torch.randn(4, 6, requires_grad=True)
    loss = KullbackLeibler().per_entry(student, teacher)
    assert loss.dtype == torch.float32
    loss.sum().backward()
    assert teacher.grad is None
    # d KL(T‖S) / d s = softmax(s) − softmax(t)
    expected = student.float().softmax(-1) - teacher.softmax(-1)
    torch.testing.assert_close(student.grad.float(), expected.detach(), atol=5e-3, rtol=1e-2)


@pytest.mark.parametrize("kind", ["kl", "mse"])
def test_shapes_are_explained(kind):
    loss = TypeAdapter(AnyLoss).validate_python({"kind": kind})
    with pytest.raises(ValueError, match=r"\[entries, ways\], got \[2, 3\] and \[2, 4\]"):
        loss.per_entry(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="at least 2 ways"):
        loss.per_entry(torch.zeros(2, 1), torch.zeros(2, 1))
    with pytest.raises(ValueError, match=r"\[queries, languages, ways\]"):
        language_consistency(torch.zeros(2, 3))
