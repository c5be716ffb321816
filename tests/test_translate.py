"""Translation: joining by id, and CTranslate2 against transformers on real tiny checkpoints."""

from pathlib import Path

import pytest
from pydantic import ValidationError

import checkpoints
from artifacts import table_artifact
from cluster.component import Resources, fingerprint
from cluster.errors import RecipeError
from pipelines.generation import Generated
from pipelines.precision import with_precision
from pipelines.tables import DOCS, QUERIES
from pipelines.translate import JoinTranslations, Translate, TranslateConfig
from pipelines.translators import Llm, Nmt, Parallel
from pipelines.translators.nmt import NmtTranslator, language_tokens
from pipelines.translators.pieces import pieces

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return checkpoints.sentences()


@pytest.fixture(scope="module")
def spm(tmp_path_factory, lines) -> Path:
    return checkpoints.sentencepiece_model(tmp_path_factory.mktemp("spm"), lines)


@pytest.fixture(scope="module")
def marian(tmp_path_factory, spm, lines) -> Path:
    checkpoints.marian(folder := tmp_path_factory.mktemp("marian"), spm, lines)
    return folder


@pytest.fixture(scope="module")
def m2m100(tmp_path_factory, spm) -> Path:
    checkpoints.m2m100(folder := tmp_path_factory.mktemp("m2m100"), spm)
    return folder


@pytest.fixture(scope="module")
def nllb(tmp_path_factory, lines) -> Path:
    checkpoints.nllb(folder := tmp_path_factory.mktemp("nllb"), lines)
    return folder


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


def say(translator: NmtTranslator, texts: list[str]) -> list[str]:
    return [translation.text for translation in translator.translate(texts)]


def test_marian_says_what_transformers_says(marian, lines):
    expected = greedy(marian, lines[:40])
    assert len(set(expected)) > 30
    assert max(len(e.split()) for e in expected) > 5
    assert say(build(marian), lines[:40]) == expected


def test_a_compute_type_is_what_runs_here_or_an_error(marian):
    with pytest.raises(RecipeError, match=r"compute_type = 'float16' does not run on this cpu; it has float32, "):
        Nmt(model=str(marian), compute_type="float16").build("en", "de")
    for name in ("float32", "int8_float32"):
        assert Nmt(model=str(marian), compute_type=name).build("en", "de")._model.compute_type == name


def test_the_step_takes_no_compute_type_that_depends_on_the_machine():
    auto = Nmt(model="m", compute_type="auto")
    with pytest.raises(ValidationError, match=r'translate.compute_type = "auto" depends on the machine'):
        TranslateConfig(source_lang="en", target_lang="de", translator=auto)
    for gpus, resolved in ((0, "float32"), (1, "float16")):
        config = TranslateConfig(source_lang="en", target_lang="de", translator=with_precision(auto, gpus))
        assert config.translator.compute_type == resolved


def test_batches_do_not_change_a_translation(marian, lines):
    assert fingerprint(Nmt(model="m", max_batch_tokens=20)) == fingerprint(Nmt(model="m"))
    assert say(build(marian, max_batch_tokens=20), lines[:40]) == say(build(marian), lines[:40])


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
    assert say(translator, [text, lines[0]]) == [" ".join(greedy(marian, cut)), *greedy(marian, lines[:1])]


def test_pieces_are_no_longer_than_their_translations_may_be(marian, lines):
    translator = build(marian, max_output=20)
    text = " ".join(lines[:4])
    cut = [p.strip() for p in pieces(text, 20, lambda t: len(translator.tokens(t)))]
    assert 20 < len(translator.tokens(text)) < 64  # the model reads it whole, and would not say it whole in 20 tokens
    assert translator.translate([text]) == [Generated(" ".join(greedy(marian, cut)))]


def test_sentences_are_translated_by_themselves_where_it_is_said(marian, lines):
    text = " ".join(lines[:3])
    assert len(build(marian).tokens(text)) < 64
    assert say(build(marian), [text]) == greedy(marian, [text])
    assert say(build(marian, sentences=True), [text]) == [" ".join(greedy(marian, lines[:3]))]
    assert greedy(marian, [text]) != [" ".join(greedy(marian, lines[:3]))]


def test_chinese_pieces_are_joined_without_spaces(marian, lines):
    joined = say(Nmt(model=str(marian), max_length=12).build("en", "zh"), [" ".join(lines[:2])])
    spaced = say(Nmt(model=str(marian), max_length=12).build("en", "de"), [" ".join(lines[:2])])
    assert joined != spaced
    assert joined[0].replace(" ", "") == spaced[0].replace(" ", "")


@pytest.mark.parametrize(("family", "source", "target"), [("m2m100", "en", "__de__"), ("nllb", "eng_Latn", "deu_Latn")])
def test_many_language_models_are_told_both_languages(family, source, target, request, lines):
    from transformers import AutoTokenizer

    checkpoint = request.getfixturevalue(family)
    token = AutoTokenizer.from_pretrained(checkpoint).convert_tokens_to_ids(target)
    expected = greedy(checkpoint, lines[:8], new_tokens=20, src_lang=source, forced_bos_token_id=token)
    translator = build(checkpoint, max_output=20)
    assert translator.tokens(lines[0])[0] == {"en": "__en__"}.get(source, source)
    assert say(translator, lines[:8]) == expected
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
    tokenizer = checkpoints.marian_tokenizer(tmp_path / "m", spm, tokens)
    assert language_tokens(tokenizer, Nmt(model="m"), "en", lang) == (expected, [])


def test_a_language_that_the_model_does_not_know_is_an_error(tmp_path, spm):
    tokenizer = checkpoints.marian_tokenizer(tmp_path / "m", spm, (">>fra<<",))
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
    columns = ("doc_id", "lang", "title", "text", "origin", "reject")
    assert [tuple(row[c] for c in columns) for row in out[:3]] == [
        ("a", "de", title, text, "1 nmt", None),
        ("b", "de", None, None, None, "source: empty text"),
        ("c", "de", "", other, "1 nmt", None),
    ]
    assert out[3]["doc_id"] == "d"


def biased(marian: Path, folder: Path, bias: float) -> Path:
    """The same model with another wish to end a sentence."""
    import shutil

    from transformers import MarianMTModel

    shutil.copytree(marian, folder)
    model = MarianMTModel.from_pretrained(folder)
    model.final_logits_bias[0, 0] = bias
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def mute(marian, tmp_path_factory) -> Path:
    """Ends every sentence before its first word."""
    return biased(marian, tmp_path_factory.mktemp("mute") / "m", 1e4)


def test_a_translation_that_does_not_end_is_rejected(marian, tmp_path):
    endless = biased(marian, tmp_path / "m", -1e4)
    config = TranslateConfig(source_lang="en", target_lang="de", translator=Nmt(model=str(endless), max_output=9))
    rows = DOCS.of([{"doc_id": "a", "lang": "en", "title": "River", "text": "The river."}])
    (row,) = DOCS.conform(Translate(config, {})(rows)).to_pylist()
    assert {name: value for name, value in row.items() if value} == {
        "doc_id": "a",
        "lang": "de",
        "reject": "translation did not end",
    }


def test_an_empty_translation_is_rejected(mute):
    config = TranslateConfig(source_lang="en", target_lang="de", translator=Nmt(model=str(mute)))
    rows = DOCS.of([{"doc_id": "a", "lang": "en", "title": "River", "text": "The river."}])
    (row,) = DOCS.conform(Translate(config, {})(rows)).to_pylist()
    assert {name: value for name, value in row.items() if value} == {
        "doc_id": "a",
        "lang": "de",
        "reject": "empty translation",
    }


def test_queries_are_translated_too(marian, lines):
    config = TranslateConfig(source_lang="en", target_lang="de", translator=Nmt(model=str(marian)))
    rows = QUERIES.of([{"query_id": "1", "lang": "en", "text": lines[0]}])
    (row,) = QUERIES.conform(Translate(config, {})(rows)).to_pylist()
    text = greedy(marian, lines[:1])[0]
    assert row == {"query_id": "1", "lang": "de", "text": text, "origin": "1 nmt", "reject": None}


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
    assert [(r["doc_id"], r["lang"], r["text"], r["origin"], r["reject"]) for r in out] == [
        ("a", "de", "eins", "1 parallel", None),
        ("b", "de", "zwei", "1 parallel", None),
        ("c", "de", None, None, "no translation"),
        ("d", "de", None, None, "no translation"),
        ("e", "de", None, None, "empty text"),
    ]
    assert out[1]["title"] == "B"


def row(doc_id: str, text: str | None = None, **more) -> dict:
    return {"doc_id": doc_id, "text": text, **more}


def test_a_later_stage_translates_what_those_before_it_could_not(marian, lines):
    """And nothing else: a good translation, and a row that was never good, pass as they are."""
    texts = dict(zip("abc", lines, strict=False))
    rows = [row(key, text, lang="en", title=text) for key, text in texts.items()] + [
        row("d", lang="en", reject="blank")
    ]
    before = [
        row("a", "Schon da", lang="de", title="T", origin="1 nmt"),
        row("b", lang="de", reject="language"),
        row("c", lang="de", reject="translation did not end"),
        row("d", lang="de", reject="blank"),
    ]
    config = TranslateConfig(source_lang="en", target_lang="de", translator=Nmt(model=str(marian)), stage=2)
    work = Translate(config, {})
    out = DOCS.conform(work(DOCS.of(rows), DOCS.of(before))).to_pylist()
    b, c = greedy(marian, [texts["b"], texts["c"]])
    assert [(r["lang"], r["title"], r["text"], r["origin"], r["reject"]) for r in out] == [
        ("de", "T", "Schon da", "1 nmt", None),
        ("de", b, b, "2 nmt", None),
        ("de", c, c, "2 nmt", None),
        ("de", None, None, None, "blank"),
    ]
    assert work.facts == {"1 nmt": 1, "2 nmt": 2}
    assert fingerprint(config) != fingerprint(config.model_copy(update={"stage": 3}))


def test_translations_that_exist_may_be_a_later_stage(tmp_path):
    german = table_artifact(tmp_path / "docs-de", DOCS, [row("a", "eins", lang="de"), row("b", "zwei", lang="de")])
    config = TranslateConfig(source_lang="en", target_lang="de", translator=Parallel(), stage=2)
    rows = DOCS.of([row("a", "one", lang="en"), row("b", "two", lang="en")])
    before = DOCS.of([row("a", "Eins!", lang="de", origin="1 nmt"), row("b", lang="de", reject="language")])
    out = JoinTranslations(config, {"translations": german})(rows, before).to_pylist()
    assert [(r["text"], r["origin"]) for r in out] == [("Eins!", "1 nmt"), ("zwei", "2 parallel")]


def test_readers_of_texts_do_not_see_where_they_come_from(tmp_path):
    from pipelines.docstore import Docstore

    docs = table_artifact(tmp_path / "docs-de", DOCS, [row("a", "eins", lang="de", origin="2 llm")])
    assert Docstore.open(docs).row("a") == {"doc_id": "a", "lang": "de", "title": None, "text": "eins"}


def test_resources_of_a_stage_change_no_translation():
    for kind, model in ((Nmt, {"model": "m"}), (Parallel, {}), (Llm, {"model": "m"})):
        assert fingerprint(kind(**model, resources=Resources(cpus=4))) == fingerprint(kind(**model))
