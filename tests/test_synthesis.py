"""Queries that are written for passages: in the right language, of the passage's words, by templates or a model."""

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from artifacts import table_artifact
from cluster.component import fingerprint
from cluster.errors import RecipeError
from pipelines.generation import Generated
from pipelines.synthesis import Synthesis
from pipelines.synthesis.base import EMPTY, Passage, Wording
from pipelines.synthesis.llm import Prompted, PromptedWriter
from pipelines.synthesis.phrases import check_prompt, find_prompt, list_languages
from pipelines.synthesis.templates import Templates
from pipelines.synthesis.works import BEYOND, Synthesise, SynthesiseConfig
from pipelines.tables import DOCS, QUERIES

pytestmark = pytest.mark.usefixtures("one_thread")

TASKS = ("question", "keywords", "title", "claim", "instruction")
PASSAGES = {
    "en": "The old stone bridge was built by merchants. In spring, salt and woollen cloth crossed it to the market.",
    "de": "Die alte Steinbrücke wurde von Kaufleuten errichtet. Im Frühjahr kamen Salz und Wolltücher zum Markt.",
    "fr": "Le vieux pont de pierre fut construit par des marchands. Au printemps, le sel et les étoffes y passaient.",
    "es": "El viejo puente de piedra fue construido por comerciantes. En primavera pasaban la sal y los tejidos.",
    "zh": "这座古老的石桥由商人修建。每年春天，食盐和毛织品都经过石桥运往集市，桥头的税务官员会逐一登记货物。",
    "fa": "پل سنگی قدیمی را بازرگانان ساختند. در بهار نمک و پارچه‌های پشمی از روی آن به بازار شهر برده می‌شد.",
    "ru": "Старый каменный мост построили купцы. Весной по нему везли соль и шерстяные ткани из соседних городов.",
}


def passages_of(texts: list[str], title: str = "") -> list[Passage]:
    return [Passage(f"d{i}", title, text) for i, text in enumerate(texts)]


def docs_of(*texts: str | None):
    rows = [{"doc_id": f"d{i}", "lang": "en", "title": "", "text": text} for i, text in enumerate(texts)]
    return DOCS.of([row | ({"reject": "too long"} if row["text"] is None else {}) for row in rows])


def detect(text: str) -> str:
    """lingua's opinion among the seven languages."""
    from lingua import IsoCode639_1, LanguageDetectorBuilder

    codes = [getattr(IsoCode639_1, lang.upper()) for lang in PASSAGES]
    found = LanguageDetectorBuilder.from_iso_codes_639_1(*codes).build().detect_language_of(text)
    return found.iso_code_639_1.name.lower() if found else ""


def synthesise(synthesis, lang: str, docs, **inputs):
    return Synthesise(SynthesiseConfig.of(synthesis, lang), inputs)(docs).to_pylist()


@pytest.mark.parametrize("lang", PASSAGES)
@pytest.mark.parametrize("task", TASKS)
def test_templates_write_in_the_language_with_words_of_the_passage(lang, task):
    text = PASSAGES[lang]
    writer = Templates(task=task).build(lang, Templates(task=task).wording(lang))
    written = writer.write([Passage(f"d{i}", "", text) for i in range(12)])
    queries = {query.text for query in written}
    assert {detect(query) for query in queries} == {lang}
    assert all(query.reject is None for query in written)
    words = Templates(task="keywords").build(lang, Templates(task="keywords").wording(lang)).write(passages_of([text]))
    longest = words[0].text.split()
    assert len(longest) == 4
    assert all(word in text for word in longest)
    for query in queries:
        if task in ("question", "instruction"):
            assert all(word in query for word in longest)
        elif task != "keywords":
            assert query in text
    if task in ("question", "instruction"):
        assert len(queries) == 3, "the phrase depends on the id"


def test_a_query_depends_on_its_passage_alone():
    texts = list(PASSAGES.values())[:1] + ["Salt was weighed in the northern tower of the harbour.", "Another 1999."]
    together = synthesise(Templates(), "en", docs_of(*texts))
    for i, text in enumerate(texts):
        alone = Templates().build("en", Templates().wording("en")).write([Passage(f"d{i}", "", text)])
        assert together[i]["text"] == alone[0].text


def test_the_title_is_the_passages_own_where_it_has_one():
    writer = Templates(task="title").build("en", Templates(task="title").wording("en"))
    assert writer.write([Passage("d", "Bridges", PASSAGES["en"])])[0].text == "Bridges"
    assert (
        writer.write([Passage("d", "", "word " * 40)])[0].text
        == "word word word word word word word word word word word word"
    )


def test_synthesise_keeps_keys_rejects_and_gives_reasons():
    rows = synthesise(Templates(), "en", docs_of(PASSAGES["en"], None, "1234 5678 — !", "a b c d e"))
    assert [row["query_id"] for row in rows] == ["d0", "d1", "d2", "d3"]
    assert [row["reject"] for row in rows] == [None, "too long", EMPTY, None]
    assert [row["lang"] for row in rows] == ["en"] * 4
    QUERIES.conform(QUERIES.of(rows))


def test_queries_are_written_for_the_passages_of_lowest_hash(tmp_path):
    docs = [{"doc_id": f"d{i}", "lang": "en", "title": "", "text": PASSAGES["en"]} for i in range(50)]
    every = table_artifact(tmp_path / "docs", DOCS, docs[:20], docs[20:])
    chosen = []
    for part in (docs[:20], docs[20:]):
        rows = synthesise(Templates(passages=12), "en", DOCS.of(part), all=every)
        chosen += [row["query_id"] for row in rows if row["reject"] is None]
        assert {row["reject"] for row in rows} == {None, BEYOND}
    more = synthesise(Templates(passages=13), "en", DOCS.of(docs), all=every)
    assert len(chosen) == 12
    assert len({row["query_id"] for row in more if row["reject"] is None} - set(chosen)) == 1


class TinyModel:
    """A Generator over transformers: a Llama of random weights that knows 18 words."""

    def __init__(self, folder):
        from tokenizers import Tokenizer, models, pre_tokenizers
        from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

        words = ["<end>", "<unk>", *"abcdefgh", "la", "me", "no", "x", "The", "English", ".", "?"]
        tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", unk_token="<unk>")
        torch.manual_seed(5)
        sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        config = LlamaConfig(vocab_size=len(words), **sizes, eos_token_id=0, bos_token_id=None, initializer_range=0.5)
        self.model = LlamaForCausalLM(config).eval()
        self.calls = 0

    def generate(self, prompts, limits):
        self.calls += 1
        return [self._one(prompt, limit) for prompt, limit in zip(prompts, limits, strict=True)]

    def _one(self, prompt, limit):
        ids = self.tokenizer(prompt, return_tensors="pt")["input_ids"]
        out = self.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit, do_sample=False, pad_token_id=0
        )[0, ids.shape[1] :]
        return Generated(self.tokenizer.decode(out, skip_special_tokens=True), ended=bool(out[-1] == 0))

    def count_tokens(self, texts):
        return [len(self.tokenizer(text)["input_ids"]) for text in texts]


def test_a_language_model_writes_what_generate_gives_for_the_prompt(tmp_path):
    model = TinyModel(tmp_path)
    texts = [f"The {a} {b} ." for a in "abcdefgh" for b in ("la", "me", "no")]
    config = Prompted(max_output=8, prompt="The {text} {language} ?")
    writer = PromptedWriter(config, "en", config.wording("en"), model)
    written = writer.write(passages_of(texts, title="x"))
    assert model.calls == 1, "a part is one call"
    answers = [model._one(f"The x {text} English ?", 8) for text in texts]
    assert [w.text for w in written] == [a.text if a.ended else "" for a in answers]
    assert {w.reject for w in written} == {None, "query did not end", EMPTY}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Generated("\n  Who built it?\nBecause …", ended=False), "Who built it?"),
        (Generated('"Who built it?"'), "Who built it?"),
        (Generated("«Кто построил мост?»"), "Кто построил мост?"),
        (Generated("Who built", ended=False), "query did not end"),
        (Generated("  \n "), EMPTY),
        (Generated('""'), EMPTY),
        (Generated("", failure="the prompt is too long"), "the prompt is too long"),
    ],
)
def test_the_query_is_the_first_line_of_an_answer(answer, expected):
    class Fixed:
        def generate(self, prompts, limits):
            return [answer for _ in prompts]

    written = PromptedWriter(Prompted(), "en", Prompted().wording("en"), Fixed()).write(passages_of(["text"]))[0]
    assert (written.reject or written.text) == expected


@pytest.mark.parametrize("task", TASKS)
def test_every_prompt_holds_the_passage_and_is_of_its_language(task):
    for lang in list_languages():
        prompt = find_prompt(task, lang).phrases[0]
        check_prompt(prompt)
        assert detect(prompt.replace("{text}", "").replace("{language}", "")) == lang
    assert set(list_languages()) == set(PASSAGES)
    assert find_prompt(task, "sw") == find_prompt(task, "en")
    assert "{language}" in find_prompt(task, "sw").phrases[0], "the English prompt says in which language to write"


@pytest.mark.parametrize("prompt", ["Write a question.", "{text} {passage}", "{text", "{text} {}"])
def test_a_prompt_without_its_placeholder_is_refused(prompt):
    with pytest.raises(ValidationError, match=r"llm.prompt\n.*(placeholder|brace)"):
        TypeAdapter(Synthesis).validate_python({"kind": "llm", "model": "some/model", "prompt": prompt})


def test_templates_of_a_language_without_phrases_are_refused_with_what_to_choose():
    with pytest.raises(RecipeError, match=r"synthesis\.task = 'question' in 'sw'.*keywords"):
        SynthesiseConfig.of(Templates(), "sw")
    assert SynthesiseConfig.of(Templates(task="keywords"), "sw").wording.phrases == ("{words}",)


def test_a_changed_phrase_makes_new_queries_and_a_changed_filter_does_not():
    config = SynthesiseConfig.of(Templates(), "en")
    other = config.model_copy(update={"wording": Wording(phrases=("What of {words}?",))})
    assert fingerprint(config) != fingerprint(other)
    filters = SynthesiseConfig.of(Templates(keep=5, most=100), "en")
    assert fingerprint(config) == fingerprint(filters)
    assert fingerprint(config) != fingerprint(SynthesiseConfig.of(Templates(passages=5), "en"))
