"""Training questions in several languages: what a recipe may say, the plan, the draw, the texts, what is recorded."""

from collections import Counter
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
from scipy.stats import chisquare

import test_batches
from artifacts import table_artifact
from cluster.errors import RecipeError
from cluster.storage import Place
from pipelines.costs.quantities import measure
from pipelines.costs.sizes import find_size
from pipelines.docstore import Docstore
from pipelines.plan import plan
from pipelines.recipe import load
from pipelines.students import load_encoder
from pipelines.students.base import Corpus
from pipelines.students.lexical.start import CorpusStatistics
from pipelines.tables import DOCS, QUERIES
from pipelines.training.batches import Batches, Draw
from pipelines.training.config import Validation
from pipelines.training.data import open_queries
from pipelines.training.losses import InfoNce
from pipelines.training.records import Drawn, Records
from pipelines.training.start import BuildStudent, StartConfig
from pipelines.training.validate import Pool
from test_recipe import parallel
from toy import CONFIG, NAMES, STUDENT, labelled, make_inputs, make_loop, open_corpus

MIXINGS = ("mix_passages", "mix_entries", "round_robin_entries")
# of one language of questions, by the code before there could be several: mixing, loss → Σ digests of twelve batches
SAMPLES = {
    ("mix_passages", "kl"): "05429f97abca049f",
    ("mix_passages", "infonce"): "c2c02c581e49a09f",
    ("mix_entries", "kl"): "12eece96028ab33f",
    ("mix_entries", "infonce"): "6d2006375b1a66e5",
    ("round_robin_entries", "kl"): "fe6d988373da7d46",
    ("round_robin_entries", "infonce"): "d366f326ec78ebd9",
}


def test_a_recipe_names_one_language_of_questions_or_several():
    one, several = load("atlas", ["languages.query=de"]), load("atlas", ['languages.query=["fa", "en", "de"]'])
    assert one.languages.query == load("atlas", ['languages.query=["de"]']).languages.query == "de"
    assert (one.languages.queries, one.languages.main_query) == (("de",), "de")
    assert (several.languages.queries, several.languages.main_query) == (("en", "fa", "de"), "en")
    assert load("atlas", ['languages.query=["fa", "de"]']).languages.main_query == "fa"
    assert (several.select.query_lang, several.score.query_lang) == ("en", "en")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[]", "languages.query: expected a language"),
        ("5", "languages.query: expected a language"),
        ('["de", "de"]', "each language once"),
        ('["de", "xx"]', "unknown language code 'xx'"),
    ],
)
def test_other_values_are_told(value, message):
    with pytest.raises(RecipeError, match=message):
        load("atlas", [f"languages.query={value}"])


def test_the_student_is_asked_in_all_and_everything_else_reads_the_original(tmp_path):
    sets = parallel(tmp_path)
    made = plan(load("xquad", [*sets, 'languages.query=["zh", "en", "de"]']))
    assert made.training is not None
    parents = made.training.train.parents
    asked = {path: step.config.lang for path, step in parents.items() if path.startswith("data.main.queries")}
    assert asked == {f"data.main.queries.{lang}": lang for lang in ("en", "zh", "de")}
    assert parents["dev.queries"].config.lang == "en"
    assert made.collections["xquad"].queries.config.lang == "en"
    start = made.training.start.parents
    assert start["data.main.queries"].config.lang == "en"
    assert {path for path in start if "translated" in path} == {
        f"data.main.translated_queries.{lang}" for lang in ("zh", "de")
    }
    english = plan(load("xquad", sets))
    assert english.training is not None
    assert parents["data.main.scores"].id == english.training.train.parents["data.main.scores"].id
    assert made.training.train.id != english.training.train.id
    again = plan(load("xquad", [*sets, 'languages.query=["en", "de", "zh"]'])).training
    assert again is not None
    assert again.train.id == made.training.train.id
    assert plan(load("xquad", [*sets, 'languages.query=["en"]'])).training.train.id == english.training.train.id
    amounts = measure(made.steps, lambda step: find_size(step, Place.of(tmp_path), {}))
    assert amounts[made.training.train.id].rows == 1  # one question, in three languages


def test_labels_and_translated_questions_are_planned_for_each_language(tmp_path):
    sets = parallel(tmp_path)
    labels = plan(load("xquad-mtt", [*sets, 'languages.query=["en", "de"]'])).training
    assert labels is not None
    assert {"data.main.qrels.en", "data.main.queries.de", "data.main.rankings"} <= set(labels.train.parents)
    nmt = ["translate.kind=nmt", "translate.model=some/model", 'languages.query=["en", "de"]', "languages.docs=en"]
    translated = plan(load("xquad", [*sets, *nmt])).training
    assert translated is not None
    assert translated.train.parents["data.main.queries.de"].name == "translate-queries-de"
    assert translated.train.parents["data.main.queries.en"].name == "queries-en"


def test_written_questions_that_no_stage_can_translate_are_told_with_the_plan(tmp_path):
    written = [*parallel(tmp_path), "synthesis.kind=templates", 'languages.query=["en", "de"]']
    said = r"writes questions in 'en', and no stage of \[translate\] can translate them into 'de'.*ask in 'en' alone"
    for asked in ([], ["languages.query=en", "score.query_lang=de"]):
        with pytest.raises(RecipeError, match=said):
            plan(load("xquad", [*written, *asked]))
    stages = 'translate=[{kind="parallel"}, {kind="nmt", model="some/model"}]'
    training = plan(load("xquad", [*written, stages])).training
    assert training is not None
    assert training.train.parents["data.main.queries.de"].config.translator.kind == "nmt"


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("BABELRAY_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


def questions(root, lang, rejected=()):
    """The twenty questions of ``test_batches.stores`` in a language."""
    rows = [
        {"query_id": f"q{n}", "lang": lang, "text": lang, "reject": "bad" if f"q{n}" in rejected else None}
        for n in range(test_batches.QUERIES)
    ]
    return Docstore.open(table_artifact(root / f"queries-{lang}@0", QUERIES, rows))


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """What ``Batches`` reads, with questions in three languages: q3 is in German alone, q7 in none."""
    root = tmp_path_factory.mktemp("asked")
    passages, _, docs = test_batches.stores(root)
    rejected = {"de": {"q7"}, "en": {"q3", "q7"}, "fa": {"q3", "q7"}}
    return passages, {lang: questions(root, lang, bad) for lang, bad in rejected.items()}, docs


@pytest.mark.parametrize("mixing", MIXINGS)
def test_a_question_s_language_is_a_function_of_seed_and_number(asked, mixing):
    draw = Draw(mixing, ways=3)
    whole, skipped = Batches(*asked, draw, 30, 9).entries(4)
    assert Batches(*asked, draw, 30, 9).entries(4) == (whole, skipped)
    turned = (asked[0], dict(reversed(asked[1].items())), asked[2])
    assert Batches(*turned, draw, 30, 9).entries(4)[0] == whole
    shares = [Batches(*asked, draw, 30, 9).entries(4, rank, 3) for rank in range(3)]
    assert [shares[n % 3][0][n // 3] for n in range(30)] == whole
    assert sum(part[1] for part in shares) == skipped
    other = Batches(*asked, draw, 30, 10).entries(4)[0]
    assert [group[0].query_lang for group in other] != [group[0].query_lang for group in whole]
    assert all(len({entry.query_lang for entry in group}) == 1 for group in whole)


@pytest.mark.parametrize("mixing", MIXINGS)
def test_languages_of_questions_are_uniform_and_change_no_passage(asked, mixing):
    batches = Batches(*asked, Draw(mixing, ways=3), 200, 2)
    groups = list(chain.from_iterable(batches.entries(n)[0] for n in range(3)))
    counts = Counter(group[0].query_lang for group in groups if group[0].query_id != "q3")
    assert set(counts) == {"de", "en", "fa"}
    assert chisquare(list(counts.values())).pvalue > 0.001
    german = Batches(asked[0], {"de": asked[1]["de"]}, asked[2], Draw(mixing, ways=3), 200, 2)
    alone = list(chain.from_iterable(german.entries(n)[0] for n in range(3)))
    assert [[replace(entry, query_lang="de") for entry in group] for group in groups] == alone


def test_a_rejected_translation_is_not_asked_and_a_question_in_no_language_is_skipped(asked):
    drawn, skipped = Batches(*asked, Draw(ways=3), test_batches.QUERIES, 5).entries(0)  # one epoch
    langs = {entry.query_lang for group in drawn for entry in group if entry.query_id == "q3"}
    assert langs == {"de"}
    assert "q7" not in {group[0].query_id for group in drawn}
    assert skipped >= 1
    found = [Batches(*asked, Draw(ways=3), 15, 6).entries(number) for number in range(8)]
    again = Batches(*asked, Draw(ways=3), 15, 6)
    assert [again.entries(number) for number in range(8)] == found  # remembered or not


def georgian(name):
    """A name in letters that no passage has."""
    return "".join(chr(0x10D0 + ord(letter) - ord("a")) for letter in name)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The toy's inputs, and a table of its questions in a language that no passage is in."""
    root = tmp_path_factory.mktemp("toy")
    inputs = make_inputs(root)
    forms = ("ჴ {}", "ჵ {} ჱ", "{} ჲ")
    rows = [
        {"query_id": f"t{form}-{n}", "lang": "ka", "text": forms[form].format(georgian(name))}
        for form in range(3)
        for n, name in enumerate(NAMES)
    ]
    return inputs, table_artifact(root / "queries-ka@0", QUERIES, rows), root


def in_both(inputs, foreign_questions):
    main = inputs["data"]["main"]
    return {**inputs, "data": {"main": {**main, "queries": {"en": main["queries"], "ka": foreign_questions}}}}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("mixing", "loss"), SAMPLES)
def test_with_one_language_of_questions_the_samples_are_those_of_before(toy, mixing, loss):
    inputs, _, root = toy
    labels = {"loss": InfoNce(), "pool": 7, "ways": 3} if loss == "infonce" else {}
    config = CONFIG.model_copy(update={"mixing": mixing, **labels})
    student = STUDENT.build(open_corpus(inputs), 0)
    data = labelled(inputs, root / mixing) if labels else inputs
    loop = make_loop(config, student, data)
    shares = [loop.objective.share(number, 0, 1) for number in range(12)]
    assert f"{sum(share.digest() for share in shares) % 2**64:016x}" == SAMPLES[mixing, loss]
    assert Counter(chain.from_iterable(share.questions().elements() for share in shares)) == {"en": 96}
    as_mapping = {**data["data"]["main"], "queries": {"en": data["data"]["main"]["queries"]}}
    same = make_loop(config, student, {"data": {"main": as_mapping}}).objective.share(5, 0, 1)
    assert same.digest() == shares[5].digest()


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("mixing", MIXINGS)
def test_shares_hold_the_question_of_the_drawn_language_and_their_digest_covers_it(toy, mixing):
    inputs, foreign_questions, _ = toy
    student = STUDENT.build(open_corpus(inputs), 0)
    both = make_loop(CONFIG.model_copy(update={"mixing": mixing}), student, in_both(inputs, foreign_questions))
    one = make_loop(CONFIG.model_copy(update={"mixing": mixing}), student, inputs)
    drawn = Drawn()
    for number in range(6):
        share = both.objective.share(number, 0, 1)
        stores = open_queries(in_both(inputs, foreign_questions)["data"]["main"]["queries"])
        for lang, query_id in share.queries:
            (expected,) = student.rows([stores[lang].text(query_id)], "query")
            assert share.queries[lang, query_id]["input_ids"].tolist() == expected["input_ids"].tolist()
        turned = replace(
            share,
            groups=[[replace(e, query_lang="ka" if e.query_lang == "en" else "en") for e in g] for g in share.groups],
        )
        assert turned.digest() != share.digest()
        assert replace(share, is_asked_in_several=False).digest() == one.objective.share(number, 0, 1).digest()
        drawn.add(share)
    assert set(drawn.questions["main"]) == {"en", "ka"}
    assert sum(drawn.questions["main"].values()) == 6 * 8
    one_worker = Drawn.joined([drawn])
    assert Records.parse(Records(9, drawn=one_worker).text()).drawn == one_worker
    joined = Drawn.joined([drawn, drawn])
    assert joined.questions["main"]["ka"] == 2 * drawn.questions["main"]["ka"]


@pytest.mark.usefixtures("one_thread")
def test_a_student_asked_in_both_languages_learns_to_answer_in_both(toy):
    """Distilled with English questions it cannot answer the others; with both it can, and English is not lost."""
    inputs, foreign_questions, root = toy
    dev = [{"query_id": f"v{n}", "lang": "ka", "text": f"ჰ {georgian(name)}"} for n, name in enumerate(NAMES)]
    dev_questions = Docstore.open(table_artifact(root / "dev-ka@0", QUERIES, dev))
    found = {}
    for name, data in (("one", inputs), ("both", in_both(inputs, foreign_questions))):
        corpus = open_corpus(inputs)
        corpus = replace(corpus, translated_queries={"ka": Docstore.open(foreign_questions)})
        student = STUDENT.build(corpus, 0)
        loop = make_loop(CONFIG, student, data)
        for number in range(100):
            loop.step(number)
        student.model.eval()
        for lang, store in (("en", Docstore.open(inputs["dev"]["queries"])), ("ka", dev_questions)):
            pool = Pool(store, inputs["dev"]["qrels"], corpus.docs, Validation())
            found[name, lang] = pool.evaluate(student, lambda value: [value])
    assert found["both", "ka"] > found["one", "ka"] + 0.3
    assert found["both", "en"] > found["one", "en"] - 0.15


def lexical_data(root):
    """Two texts in two languages, with a question in each."""
    docs = {"en": ["castles stand near rivers", "markets sell bread"], "de": ["burgen stehen nahe", "brot vom markt"]}
    asked = {"en": "what stands near", "de": "was steht dort dort"}
    tables = {
        lang: table_artifact(
            root / f"docs-{lang}@0",
            DOCS,
            [{"doc_id": f"d{n}", "lang": lang, "title": "", "text": text} for n, text in enumerate(texts)],
        )
        for lang, texts in docs.items()
    }
    queries = {
        lang: table_artifact(root / f"q-{lang}@0", QUERIES, [{"query_id": "q", "lang": lang, "text": text}])
        for lang, text in asked.items()
    }
    return {"main": {"queries": queries["en"], "docs": tables, "translated_queries": {"de": queries["de"]}}}


def test_the_lexical_student_knows_the_words_of_all_questions_and_keeps_its_pivot(tmp_path):
    data = lexical_data(tmp_path)
    both = CorpusStatistics.count(Corpus.open(data))
    main = {"queries": data["main"]["queries"], "docs": data["main"]["docs"]}
    english = CorpusStatistics.count(Corpus.open({"main": main}))
    assert both.pivot == english.pivot == "en"
    assert "dort" in both.list_words(99)
    assert "dort" not in english.list_words(99)
    assert not both.is_pivot("dort")
    assert both.compute_idf("was") < english.compute_idf("was")  # as "what": a word of questions says little
    assert both.compute_idf("what") == english.compute_idf("what")
    assert np.isclose(both.compute_idf("castles"), english.compute_idf("castles"))


def test_start_is_built_from_the_questions_of_all_languages(toy, tmp_path):
    inputs, foreign_questions, _ = toy
    main = inputs["data"]["main"]
    data = {"main": {"queries": main["queries"], "docs": main["docs"]}}
    with_others = {"main": {**data["main"], "translated_queries": {"ka": foreign_questions}}}
    texts = list(Corpus.open(with_others).iterate_texts())
    assert texts[: len(list(Corpus.open(data).iterate_texts()))] == list(Corpus.open(data).iterate_texts())
    assert f"ჴ {georgian('oslo')}" in texts
    BuildStudent(StartConfig(student=STUDENT), with_others, Place.of(tmp_path))("student")
    built = load_encoder(tmp_path / "start", "cpu")
    tokens = built.model.tokenizer.convert_ids_to_tokens(built.rows(["ჴ ჵ ჱ"], "query")[0]["input_ids"])
    assert sum(any(letter in token for letter in "ჴჵჱ") for token in tokens) == 3  # letters of questions alone
