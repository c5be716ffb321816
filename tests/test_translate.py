"""Translation: joining by id, cutting long texts, and CTranslate2 against transformers on real tiny checkpoints."""

import json
import random
from pathlib import Path

import pytest
import torch
from artifacts import table_artifact
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import RecipeError
from pipelines.tables import DOCS, QUERIES
from pipelines.translate import JoinTranslations, Translate, TranslateConfig
from pipelines.translators import Nmt, Parallel
from pipelines.translators.nmt import NmtTranslator, language_tokens
from pipelines.translators.pieces import pieces

TEXT = """the river runs through old city and its bridge was built of stone by people who came from north to trade
salt wool wine every spring market day under tall tower"""
WORDS = TEXT.split()


@pytest.fixture(scope="module")
def lines() -> list[str]:
    rng = random.Random(0)
    return [" ".join(rng.choices(WORDS, k=rng.randint(4, 14))).capitalize() + "." for _ in range(400)]


@pytest.fixture(scope="module")
def spm(tmp_path_factory, lines) -> Path:
    import sentencepiece

    folder = tmp_path_factory.mktemp("spm")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_prefix=str(folder / "m"),
        vocab_size=100,
        character_coverage=1.0,
        bos_id=-1,
        eos_id=0,
        unk_id=1,
        minloglevel=2,
    )
    return folder / "m.model"


def marian_tokenizer(folder: Path, spm: Path, extra: tuple[str, ...] = ()):
    import sentencepiece
    from transformers import MarianTokenizer

    folder.mkdir(exist_ok=True)
    model = sentencepiece.SentencePieceProcessor(model_file=str(spm))
    tokens = [*(model.id_to_piece(i) for i in range(len(model))), *extra, "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    for side in ("source", "target"):
        (folder / f"{side}.spm").write_bytes(spm.read_bytes())
    return MarianTokenizer(*(str(folder / f) for f in ("source.spm", "target.spm", "vocab.json")))


@pytest.fixture(scope="module")
def marian(tmp_path_factory, spm, lines) -> Path:
    """A MarianMTModel of 50 k weights, trained for two seconds to copy, so that its outputs are words and they end."""
    from transformers import MarianConfig, MarianMTModel

    folder = tmp_path_factory.mktemp("marian")
    tokenizer = marian_tokenizer(folder, spm)
    torch.manual_seed(0)
    pad = tokenizer.pad_token_id
    shape = {
        f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in (("layers", 1), ("attention_heads", 4))
    }
    config = MarianConfig(
        vocab_size=len(tokenizer),
        d_model=48,
        **shape,
        encoder_ffn_dim=96,
        decoder_ffn_dim=96,
        max_position_embeddings=64,
        pad_token_id=pad,
        decoder_start_token_id=pad,
        eos_token_id=0,
        bos_token_id=0,
        forced_eos_token_id=None,
        scale_embedding=True,
        activation_function="swish",
        dropout=0.0,
    )
    model = MarianMTModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rng = random.Random(1)
    for _ in range(150):
        batch = tokenizer(rng.sample(lines, 32), return_tensors="pt", padding=True)
        labels = batch["input_ids"].masked_fill(batch["input_ids"] == pad, -100)
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():  # Marian decodes from a zero vector, which transformers stores as the embedding of <pad>
        model.get_input_embeddings().weight[pad] = 0
    model.generation_config.bad_words_ids = [[pad]]  # as every published Marian checkpoint has it
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Two threads are slower than one on matrices this small, most of all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def greedy(checkpoint: Path, texts: list[str], new_tokens: int = 64, **options) -> list[str]:
    """What transformers says, one text at a time."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    tokenizer.src_lang = options.pop("src_lang", None)
    model = AutoModelForSeq2SeqLM.from_pretrained(checkpoint).eval()
    model.generation_config.max_length = None
    out = []
    for text in texts:
        ids = model.generate(
            **tokenizer(text, return_tensors="pt"), max_new_tokens=new_tokens, num_beams=1, do_sample=False, **options
        )
        out.append(tokenizer.decode(ids[0][2 if options else 1 :], skip_special_tokens=True).strip())
    return out


def build(model: Path, **options) -> NmtTranslator:
    return Nmt(model=str(model), compute_type="float32", **options).build("en", "de")


def test_marian_says_what_transformers_says(marian, lines):
    expected = greedy(marian, lines[:40])
    assert len(set(expected)) > 30
    assert max(len(e.split()) for e in expected) > 5
    assert build(marian).translate(lines[:40]) == expected


def test_batches_do_not_change_a_translation(marian, lines):
    assert build(marian, max_batch_tokens=20).translate(lines[:40]) == build(marian).translate(lines[:40])


def test_a_checkpoint_is_converted_once(marian, lines):
    from pipelines.translators.nmt import converted

    first = converted(marian)
    before = (first / "model.bin").stat().st_mtime_ns
    build(marian)
    assert (converted(marian) / "model.bin").stat().st_mtime_ns == before


def test_a_text_beyond_the_models_limit_is_translated_sentence_by_sentence(marian, lines):
    translator = build(marian)
    text = " ".join(lines[:12])
    assert len(translator.tokens(text)) > 64
    cut = [p.strip() for p in pieces(text, 64, lambda t: len(translator.tokens(t)))]
    assert len(cut) > 1
    assert all(p.endswith(".") for p in cut)
    assert translator.translate([text, lines[0]]) == [" ".join(greedy(marian, cut)), *greedy(marian, lines[:1])]


def test_chinese_pieces_are_joined_without_spaces(marian, lines):
    joined = Nmt(model=str(marian), max_length=12).build("en", "zh").translate([" ".join(lines[:2])])
    spaced = Nmt(model=str(marian), max_length=12).build("en", "de").translate([" ".join(lines[:2])])
    assert joined != spaced
    assert joined[0].replace(" ", "") == spaced[0].replace(" ", "")


def m2m100_model(folder: Path, vocabulary: int) -> None:
    from transformers import M2M100Config, M2M100ForConditionalGeneration

    torch.manual_seed(1)
    config = M2M100Config(
        vocab_size=vocabulary,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=64,
        init_std=0.5,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=2,
    )
    M2M100ForConditionalGeneration(config).save_pretrained(folder)


@pytest.fixture(scope="module")
def m2m100(tmp_path_factory, spm) -> Path:
    import sentencepiece
    from transformers import M2M100Tokenizer

    folder = tmp_path_factory.mktemp("m2m100")
    model = sentencepiece.SentencePieceProcessor(model_file=str(spm))
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *(model.id_to_piece(i) for i in range(2, len(model)))]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    tokenizer = M2M100Tokenizer(str(folder / "vocab.json"), str(spm), src_lang="en", tgt_lang="de")
    tokenizer.save_pretrained(folder)
    m2m100_model(folder, len(tokens) + len(tokenizer.lang_code_to_token) + 8)
    return folder


@pytest.fixture(scope="module")
def nllb(tmp_path_factory, lines) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import NllbTokenizer

    folder = tmp_path_factory.mktemp("nllb")
    bpe = Tokenizer(models.BPE(unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    bpe.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=150, special_tokens=special, show_progress=False))
    model = json.loads(bpe.to_str())["model"]
    tokenizer = NllbTokenizer(vocab=model["vocab"], merges=[tuple(m) for m in model["merges"]])
    tokenizer.save_pretrained(folder)
    m2m100_model(folder, len(tokenizer) + 2)
    return folder


@pytest.mark.parametrize(("family", "source", "target"), [("m2m100", "en", "__de__"), ("nllb", "eng_Latn", "deu_Latn")])
def test_many_language_models_are_told_both_languages(family, source, target, request, lines):
    from transformers import AutoTokenizer

    checkpoint = request.getfixturevalue(family)
    token = AutoTokenizer.from_pretrained(checkpoint).convert_tokens_to_ids(target)
    expected = greedy(checkpoint, lines[:8], new_tokens=20, src_lang=source, forced_bos_token_id=token)
    translator = build(checkpoint, max_output=20)
    assert translator.tokens(lines[0])[0] == {"en": "__en__"}.get(source, source)
    assert translator.translate(lines[:8]) == expected
    assert len(set(expected)) > 3


@pytest.mark.parametrize(
    ("lang", "tokens", "expected"),
    [
        ("de", (">>deu<<", ">>fra<<"), ">>deu<< "),
        ("de", (">>de<<", ">>fr<<"), ">>de<< "),
        ("zh", (">>cmn_Hans<<", ">>cmn_Hant<<"), ">>cmn_Hans<< "),
        ("zh-Hant", (">>cmn_Hans<<", ">>cmn_Hant<<"), ">>cmn_Hant<< "),
        ("fa", (">>pes<<",), ">>pes<< "),
        ("de", (), ""),
    ],
)
def test_marian_is_told_the_target_where_it_has_several(tmp_path, spm, lang, tokens, expected):
    tokenizer = marian_tokenizer(tmp_path / "m", spm, tokens)
    assert language_tokens(tokenizer, Nmt(model="m"), "en", lang) == (expected, [])


def test_a_language_that_the_model_does_not_know_is_an_error(tmp_path, spm):
    tokenizer = marian_tokenizer(tmp_path / "m", spm, (">>fra<<",))
    with pytest.raises(RecipeError, match=r"m does not know language 'de'.*>>deu<<.*target_token"):
        language_tokens(tokenizer, Nmt(model="m"), "en", "de")
    assert language_tokens(tokenizer, Nmt(model="m", target_token=">>fra<<"), "en", "de")[0] == ">>fra<< "


def test_another_kind_of_model_is_refused(tmp_path):
    from transformers import BertConfig

    BertConfig(hidden_size=8).save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match="'bert' model; expected Marian, M2M100 or NLLB"):
        Nmt(model=str(tmp_path)).build("en", "de")


def test_translate_keeps_keys_order_titles_and_reasons(marian, lines):
    config = TranslateConfig(source_lang="en", target_lang="de", translator=Nmt(model=str(marian)))
    rows = DOCS.of(
        [
            {"doc_id": "a", "lang": "en", "title": lines[0], "text": lines[1]},
            {"doc_id": "b", "lang": "en", "reject": "source: empty text"},
            {"doc_id": "c", "lang": "en", "title": "", "text": lines[2]},
            {"doc_id": "d", "lang": "en", "text": "\u200b"},
        ]
    )
    out = DOCS.conform(Translate(config, {})(rows)).to_pylist()
    title, text, other = greedy(marian, [lines[0], lines[1], lines[2]])
    assert out[:3] == [
        {"doc_id": "a", "lang": "de", "title": title, "text": text, "reject": None},
        {"doc_id": "b", "lang": "de", "title": None, "text": None, "reject": "source: empty text"},
        {"doc_id": "c", "lang": "de", "title": "", "text": other, "reject": None},
    ]
    assert out[3]["doc_id"] == "d"


@pytest.fixture(scope="module")
def mute(marian, tmp_path_factory) -> Path:
    """The same model with a bias that ends every sentence before its first word."""
    import shutil

    from transformers import MarianMTModel

    folder = tmp_path_factory.mktemp("mute") / "m"
    shutil.copytree(marian, folder)
    model = MarianMTModel.from_pretrained(folder)
    model.final_logits_bias[0, 0] = 1e4
    model.save_pretrained(folder)
    return folder


def test_an_empty_translation_is_rejected(mute):
    config = TranslateConfig(source_lang="en", target_lang="de", translator=Nmt(model=str(mute)))
    rows = DOCS.of([{"doc_id": "a", "lang": "en", "title": "River", "text": "The river."}])
    (row,) = DOCS.conform(Translate(config, {})(rows)).to_pylist()
    assert row == {"doc_id": "a", "lang": "de", "title": None, "text": None, "reject": "empty translation"}


def test_queries_are_translated_too(marian, lines):
    config = TranslateConfig(source_lang="en", target_lang="de", translator=Nmt(model=str(marian)))
    rows = QUERIES.of([{"query_id": "1", "lang": "en", "text": lines[0]}])
    (row,) = QUERIES.conform(Translate(config, {})(rows)).to_pylist()
    assert row == {"query_id": "1", "lang": "de", "text": greedy(marian, lines[:1])[0], "reject": None}


def test_a_part_of_rejects_is_no_work(marian):
    config = TranslateConfig(source_lang="en", target_lang="de", translator=Nmt(model=str(marian)))
    (row,) = DOCS.conform(Translate(config, {})(DOCS.of([{"doc_id": "a", "lang": "en", "reject": "why"}]))).to_pylist()
    assert row["reject"] == "why"


def test_parallel_translations_are_joined_by_id(tmp_path):
    german = table_artifact(
        tmp_path / "docs-de",
        DOCS,
        [{"doc_id": "b", "lang": "de", "title": "B", "text": "zwei"}, {"doc_id": "x", "lang": "de", "text": "mehr"}],
        [{"doc_id": "a", "lang": "de", "text": "eins"}, {"doc_id": "d", "lang": "de", "reject": "empty text"}],
    )
    config = TranslateConfig(source_lang="en", target_lang="de", translator=Parallel())
    english = [{"doc_id": i, "lang": "en", "title": "", "text": i} for i in "abcd"]
    rows = DOCS.of([*english, {"doc_id": "e", "lang": "en", "reject": "empty text"}])
    out = DOCS.conform(JoinTranslations(config, {"translations": german})(rows)).to_pylist()
    assert [(r["doc_id"], r["lang"], r["text"], r["reject"]) for r in out] == [
        ("a", "de", "eins", None),
        ("b", "de", "zwei", None),
        ("c", "de", None, "no translation"),
        ("d", "de", None, "no translation"),
        ("e", "de", None, "empty text"),
    ]
    assert out[1]["title"] == "B"


SCRIPTS = [
    "One. Two! Three? ",
    "第一句。第二句！",
    "पहला। दूसरा। ",
    "جمله اول؟ دوم. ",
    "ภาษาไทยไม่มีเว้นวรรค",
    "e\u0301a\u0300",
    "\n",
]


@given(st.lists(st.sampled_from(SCRIPTS) | st.text(max_size=8), max_size=12).map("".join), st.integers(1, 20))
def test_pieces_lose_nothing(text, limit):
    assert "".join(pieces(text, limit, len)) == text


@given(st.lists(st.sampled_from(SCRIPTS[:4]), max_size=12).map("".join), st.integers(3, 20))
def test_pieces_fit_the_limit(text, limit):
    assert max(map(len, pieces(text, limit, len))) <= limit


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("One two. Three four. Five.", 16, ["One two. ", "Three four. ", "Five."]),
        ('He said "no." Then he left.', 15, ['He said "no." ', "Then he left."]),
        ("第一句话。第二句话！第三句。", 9, ["第一句话。", "第二句话！第三句。"]),
        ("alpha beta gamma delta", 12, ["alpha beta ", "gamma delta"]),
        ("ภาษาไทย", 4, ["ภาษา", "ไทย"]),
        ("costs 3.14 euros", 10, ["costs ", "3.14 euros"]),
    ],
)
def test_pieces_are_cut_at_sentences_then_spaces_then_characters(text, limit, expected):
    assert pieces(text, limit, len) == expected
