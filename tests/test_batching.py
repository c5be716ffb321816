"""Batches that hold a number of tokens."""

from hypothesis import given
from hypothesis import strategies as st

from pipelines.batching import by_length


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 120))
def test_batches_hold_everything_once_within_the_budget_and_the_longest_first(lengths: list[int], budget: int) -> None:
    batches = by_length(lengths, budget)
    assert sorted(int(i) for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(len(batch) for batch in batches)
    longest = [max(lengths[i] for i in batch) for batch in batches]
    assert longest == sorted(longest, reverse=True)
    for batch, length in zip(batches, longest, strict=True):
        assert len(batch) * length <= budget or len(batch) == 1


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 120))
def test_a_batch_takes_what_fits(lengths: list[int], budget: int) -> None:
    """Naive: one after another, longest first, into the same batch while it holds them."""
    expected: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if expected and (len(expected[-1]) + 1) * lengths[expected[-1][0]] <= budget:
            expected[-1].append(index)
        else:
            expected.append([index])
    assert [batch.tolist() for batch in by_length(lengths, budget)] == expected
