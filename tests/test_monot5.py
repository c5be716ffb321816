"""MonoT5 against the first step of the decoder as transformers computes it, on tiny checkpoints of both families."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from cluster.errors import RecipeError
from pipelines.scorers import CrossEncoderScorer, MonoT5Scorer

pytestmark = pytest.mark.usefixtures("one_thread")

QUERIES = ["old stone bridge", "salt market"]
DOCS = ["the old stone bridge over the river", "a market for salt and wool " * 4 + "in the old town", "north", "salt"]
PAIRS = np.array([(i, j) for i in range(len(QUERIES)) for j in range(len(DOCS))])
WORDS = {"t5": ("▁true", "▁false"), "mt5": ("▁yes", "▁no")}


def checkpoint(folder, family, words=("▁true", "▁false", "▁yes", "▁no"), spread=1.0):
    """A model of one layer and random weights, with whole words as its vocabulary."""
    from transformers import MT5Config, MT5ForConditionalGeneration, T5Config, T5ForConditionalGeneration, T5Tokenizer

    texts = [*QUERIES, *DOCS, "Query: Document: Relevant:"]
    pieces = sorted({f"▁{word}" for text in texts for word in text.split()} | set(words))
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -9.0), *((piece, -4.0) for piece in pieces)]
    T5Tokenizer(vocab=vocabulary, extra_ids=0).save_pretrained(folder)
    config_class, model_class = {
        "t5": (T5Config, T5ForConditionalGeneration),
        "mt5": (MT5Config, MT5ForConditionalGeneration),
    }[family]
    config = config_class(
        vocab_size=len(vocabulary) + 8,  # published checkpoints have more rows than their tokenizer has tokens
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
        initializer_factor=spread,
        feed_forward_proj="gated-gelu" if family == "mt5" else "relu",
        tie_word_embeddings=family == "t5",
    )
    torch.manual_seed(0)
    model_class(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module", params=["t5", "mt5"])
def family(request, tmp_path_factory):
    return request.param, checkpoint(tmp_path_factory.mktemp(request.param), request.param)


def first_step(directory, words):
    """Logits of two words at the decoder's first step, one prompt at a time: float64 [P, 2]."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    model, tokenizer = (
        kind.from_pretrained(directory, **kw)
        for kind, kw in ((AutoModelForSeq2SeqLM, {"dtype": torch.float32}), (AutoTokenizer, {}))
    )
    model.eval()
    ids = tokenizer.convert_tokens_to_ids(list(words))
    rows = []
    for i, j in PAIRS:
        prompt = tokenizer(f"Query: {QUERIES[i]} Document: {DOCS[j]} Relevant:", return_tensors="pt")
        with torch.inference_mode():
            out = model.generate(
                **prompt, max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True
            )
        rows.append(out.logits[0][0, ids].double().numpy())
    return np.array(rows)


@pytest.mark.parametrize("batch_tokens", [1, 60, 4096])
def test_scores_are_those_of_the_first_decoder_step(family, batch_tokens):
    name, directory = family
    true, false = first_step(directory, WORDS[name]).T
    teacher = MonoT5Scorer(model=directory, batch_tokens=batch_tokens).build(None)
    scores = teacher.score(QUERIES, DOCS, PAIRS)
    assert scores.dtype == np.float32
    assert scores == pytest.approx(true - np.logaddexp(true, false), abs=1e-5)
    assert scores.max() < 0
    assert np.ptp(scores) > 0.1
    logits = MonoT5Scorer(model=directory, score="logit", batch_tokens=batch_tokens).build(None)
    assert logits.score(QUERIES, DOCS, PAIRS) == pytest.approx(true - false, abs=1e-5)


def test_words_can_be_named(family):
    _, directory = family
    words = ("▁market", "▁")
    true, false = first_step(directory, words).T
    scorer = MonoT5Scorer(model=directory, true_token=words[0], false_token=words[1], score="logit")
    assert scorer.build(None).score(QUERIES, DOCS, PAIRS) == pytest.approx(true - false, abs=1e-5)


def test_a_long_document_is_cut_and_the_prompt_keeps_its_end(family):
    _, directory = family
    teacher = MonoT5Scorer(model=directory, max_length=16).build(None)
    long, cut = DOCS[1], " ".join(DOCS[1].split()[:10])  # 16 less Query: salt market Document: Relevant: </s>
    scores = teacher.score(["salt market"], [long, cut, " ".join(cut.split()[:9])], np.array([[0, 0], [0, 1], [0, 2]]))
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
    assert scores[0] != pytest.approx(scores[2], abs=1e-6)


def test_half_precision_keeps_the_order_and_does_not_tie(family):
    _, directory = family
    whole, half = (
        MonoT5Scorer(model=directory, precision=precision, score="logit").build(None).score(QUERIES, DOCS, PAIRS)
        for precision in ("fp32", "bf16")
    )
    assert not np.array_equal(whole, half)
    assert np.corrcoef(whole, half)[0, 1] > 0.99
    assert not np.array_equal(half, torch.from_numpy(half).bfloat16().float().numpy())  # the last layer is fp32


def test_float16_does_not_overflow_in_the_feed_forward_layers(tmp_path):
    """Weights so large that the sums of ``wo`` leave float16, which ends at 65,504."""
    directory = checkpoint(tmp_path, "t5")
    from transformers import AutoModelForSeq2SeqLM

    model = AutoModelForSeq2SeqLM.from_pretrained(directory)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("wo.weight"):
                weight *= 1e6
    model.save_pretrained(directory)
    scores = MonoT5Scorer(model=directory, precision="fp16").build(None).score(QUERIES, DOCS, PAIRS)
    whole = MonoT5Scorer(model=directory).build(None).score(QUERIES, DOCS, PAIRS)
    assert np.isfinite(scores).all()
    assert np.corrcoef(scores, whole)[0, 1] > 0.99


def test_what_cannot_answer_is_refused(tmp_path, family):
    with pytest.raises(ValidationError, match="true_token and false_token, or neither"):
        MonoT5Scorer(model="m", true_token="▁true")
    with pytest.raises(ValidationError, match="set true_token = '▁true' and false_token = '▁'"):
        MonoT5Scorer(model="unicamp-dl/mt5-13b-mmarco-100k")
    with pytest.raises(RecipeError, match=r"'▁oui' is no token of .*true_token"):
        MonoT5Scorer(model=family[1], true_token="▁oui", false_token="▁non").build(None)
    from transformers import BartConfig, BartForConditionalGeneration, T5Tokenizer

    config = BartConfig(vocab_size=10, d_model=8, encoder_layers=1, decoder_layers=1, max_position_embeddings=8)
    config.encoder_attention_heads = config.decoder_attention_heads = 1
    BartForConditionalGeneration(config).save_pretrained(tmp_path)
    T5Tokenizer(extra_ids=0).save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match=r"is a bart; expected a model of t5, mt5.*cross_encoder"):
        MonoT5Scorer(model=str(tmp_path)).build(None)
    with pytest.raises(RecipeError, match="untrained outputs"):
        CrossEncoderScorer(model=family[1]).build(None)
