"""What the steps of a plan handle, against numbers computed by hand."""

from math import ceil

import pytest

from cluster.errors import RecipeError
from cluster.storage import Place
from collections_on_disk import write
from marco_plans import RECIPE, three_languages
from pipelines.costs.quantities import measure
from pipelines.costs.rates import key_of, languages_of, strip_languages
from pipelines.costs.sizes import count_tokens, find_size, parse_rows
from pipelines.costs.storage import bytes_of, bytes_of_index, endpoint_requests
from pipelines.verbs import load_plan

DOCS, QUERIES, TRAINED = 8_841_823, 6_980, 502_939
DOC_TOKENS, QUERY_TOKENS = 56 * 1.35, 6 * 1.35


@pytest.fixture(scope="module")
def marco(tmp_path_factory):
    """The steps of the path to three languages by name, with what each handles."""
    root = tmp_path_factory.mktemp("root")
    plan, _ = load_plan(RECIPE, three_languages(root), data_needed=False)
    amounts = measure(plan.steps, lambda step: find_size(step, Place.of(root), {}))
    return {step.name: (step, amounts[step.id]) for step in plan.steps}


def test_a_row_in_is_a_row_out_and_a_part_in_a_part_out(marco) -> None:
    for name in ("docs-en", "translate-zh", "translate-fa", "encode-select-en"):
        assert marco[name][1].rows == DOCS
        assert marco[name][1].files == ceil(DOCS / 4096) == 2159
    assert marco["docs-en"][1].tasks == 1  # a source streams
    assert marco["translate-fa"][1].tasks == 2159
    assert marco["select"][1].rows == TRAINED
    assert marco["select"][1].files == ceil(TRAINED / 256) == 1965


def test_a_translation_reads_and_writes_the_tokens_of_its_texts(marco) -> None:
    _, amount = marco["translate-zh"]
    assert amount.read == amount.written == pytest.approx(DOCS * DOC_TOKENS)


def test_a_teacher_reads_each_question_with_each_of_its_passages(marco) -> None:
    _, amount = marco["score"]
    assert amount.units == TRAINED * 50 == 25_146_950
    assert amount.read == pytest.approx(25_146_950 * (QUERY_TOKENS + DOC_TOKENS))


def test_a_training_reads_its_batches(marco) -> None:
    _, amount = marco["train"]
    assert (amount.units, amount.unit) == (200_000, "steps")
    assert amount.read == pytest.approx(200_000 * 64 * (32 + 6 * DOC_TOKENS))
    assert amount.extra["stops"] == 100  # a checkpoint every 2,000 steps, and no validation


def test_vectors_are_two_bytes_a_component_and_padded_for_queries(marco) -> None:
    step, docs = marco["encode-student-zh"]
    assert docs.tokens == pytest.approx(DOC_TOKENS)
    assert bytes_of(step, docs) == pytest.approx(DOCS * (DOC_TOKENS * 128 * 2 + 8))
    assert marco["encode-student-queries-en"][1].tokens == 32


def test_plaid_by_its_own_rule(marco) -> None:
    """Two languages of 89 shards each: the tokens of one shard of each give 2^⌊log2(16·√tokens)⌋ centroids."""
    step, amount = marco["index-student"]
    assert amount.tasks == 2 * 89
    assert 2**15 < 16 * (2 * DOCS * DOC_TOKENS / 89) ** 0.5 < 2**16
    assert amount.extra["centroids"] == 32_768
    tokens = 2 * DOCS * DOC_TOKENS
    compared = 1.4 * (256 + 12 * 32_768 / 256)  # 256 groups, of which 12 are visited
    learning = 4 * (256 + 128) + compared  # four rounds of each level, and once more among all
    assigned, learnt = 2 * 128 * tokens * compared, 2 * 128 * (48 * 32_768) * learning  # 48 vectors per centroid
    assert amount.units == pytest.approx((assigned + learnt) / 1e9)
    assert amount.serial == pytest.approx(learnt / (assigned + learnt))
    assert bytes_of_index(step, amount) == pytest.approx(2 * DOCS * 8 + tokens * (16 + 2 + 2))  # 1 bit of 128


def test_an_index_that_fits_no_worker_is_searched_in_groups(marco) -> None:
    """13.4 GB of a language in groups of 4 GB, of the lexical index of 3.3 GB in one."""
    assert marco["search-student-shards"][1].extra["groups"] == 4
    assert marco["search-student-shards"][1].tasks == 4 * 2  # 6,980 questions are one run
    assert marco["search-student-zh"][1].units == QUERIES  # merges what was found
    assert marco["search-bm25-shards"][1].tasks == 0
    assert marco["search-bm25-zh"][1].units == QUERIES * DOCS


def test_ms_marco_of_ir_datasets_has_its_published_rows(tmp_path) -> None:
    plan, root = load_plan("multilingual-translate-distill", [f"root={tmp_path}"], data_needed=False)
    amounts = measure(plan.steps, lambda step: find_size(step, root, {}))
    rows = {step.name: amounts[step.id].rows for step in plan.steps}
    assert {rows[name] for name in ("docs-en", "docs-fa", "translate-zh")} == {DOCS}
    assert rows["score"] == 808_731  # the file may have fewer
    assert rows["encode-student-queries-en"] == QUERIES


def test_of_written_questions_those_that_are_kept_are_scored(tmp_path) -> None:
    """Of a million articles 8,000 get a question, and 4,000 of these stay; the other rows cost nothing."""
    sets = [f"root={tmp_path}", f"source.docs_path={tmp_path}/{{lang}}.jsonl"]
    plan, root = load_plan("retrofit-synthetic", sets, data_needed=False)
    amounts = measure(plan.steps, lambda step: find_size(step, root, {"docs": 1_000_000, "queries": 300}))
    by_name = {step.name: (step, amounts[step.id]) for step in plan.steps}
    synth, found, mined = by_name["synth-de"][1], by_name["found-de"][1], by_name["mine"][1]
    assert (synth.rows, mined.rows) == (1_000_000, 1_000_000)
    assert (synth.units, synth.written, found.units, mined.units) == (8000, 80_000, 8000, 4000)
    score = by_name["score"][1]
    assert score.units == 4000 * (100 + 2 + 1)  # to rank 100 (mine.range_max), as positives.py reads it
    assert score.read == pytest.approx(score.units * (100 * 1.35 + 10))  # tokens of an article and of a question
    assert by_name["train"][1].rows == 4000
    step, vectors = by_name["encode-select-cap-de"]  # BGE-M3: one of 1,024 components a question
    assert bytes_of(step, vectors) == pytest.approx(1_000_000 * 8 + 4000 * 1024 * 2)


def test_small_sources_are_counted(tmp_path) -> None:
    source = write(
        tmp_path / "data",
        {
            "collection.en.tsv": "d1\tone two three four\nd2\tone two\n",
            "collection.de.tsv": "d1\teins\nd2\tzwei\n",
            "queries.en.tsv": "q1\twhich one\nq2\twhich two\nq3\twhich three\n",
            "qrels.tsv": "q1 0 d1 1\n",
        },
    )
    sets = [f"source.path={source}", 'languages.docs=["en", "de"]', f"root={tmp_path}/root", "train_split=all"]
    plan, root = load_plan("xquad", [*sets, "validate_split=", "evaluate.xquad.split=all"], data_needed=False)
    sizes = {step.name: find_size(step, root, {}) for step in plan.steps if step.name.startswith(("docs", "queries"))}
    assert (sizes["docs-en"].rows, sizes["docs-en"].origin) == (2, "counted")
    assert sizes["docs-en"].tokens == pytest.approx(3 * 1.35)
    assert sizes["queries-en"].rows == 3


def test_rows_that_nothing_tells_are_asked_for(tmp_path) -> None:
    plan, root = load_plan("xquad", [f"source.path={tmp_path}/none", f"root={tmp_path}"], data_needed=False)
    docs = next(step for step in plan.steps if step.name == "docs-en")
    with pytest.raises(RecipeError, match="--rows docs=NUMBER"):
        find_size(docs, root, {})
    assert find_size(docs, root, {"docs": 240}).rows == 240
    assert find_size(docs, root, {"docs": 240, "docs-en": 7}).rows == 7  # the nearer name


@pytest.mark.parametrize("wrong", ["docs", "docs=", "docs=-3", "=3", "docs=many"])
def test_rows_must_be_numbers(wrong) -> None:
    with pytest.raises(RecipeError, match="NAME=NUMBER"):
        parse_rows([wrong])


def test_rows_may_be_written_with_separators() -> None:
    assert parse_rows(["docs=8_841_823", "queries=1,000"]) == {"docs": DOCS, "queries": 1000}


def test_tokens_of_words_and_of_characters() -> None:
    assert count_tokens("two words") == pytest.approx(2.7)
    assert count_tokens("没有空格的文字") == pytest.approx(7 / 1.5)


def test_languages_share_a_rate_and_other_configs_do_not(marco, tmp_path) -> None:
    steps = [step for step, _ in marco.values()]
    langs = languages_of(steps)
    assert {"en", "zh", "fa", "ru"} <= langs
    zh, ru = marco["translate-zh"][0], marco["translate-ru"][0]
    assert key_of(zh, langs) == key_of(ru, langs)
    other, _ = load_plan(RECIPE, [*three_languages(tmp_path), "translate.beam=4"], data_needed=False)
    beam = next(step for step in other.steps if step.name == "translate-zh")
    assert key_of(beam, langs) != key_of(zh, langs)


@pytest.mark.parametrize(
    ("name", "stripped"),
    [
        ("translate-queries-zh", "translate-queries"),
        ("gate-zh-2", "gate-2"),
        ("docs-zh-Hant", "docs"),
        ("search-bm25-en", "search-bm25"),
        ("search-enough", "search-enough"),
    ],
)
def test_names_without_languages(name, stripped) -> None:
    assert strip_languages(name, {"zh", "zh-Hant", "en"}) == stripped


def test_an_endpoint_is_asked_once_a_row(tmp_path) -> None:
    openai = ['translate={kind="openai", url="http://127.0.0.1:1/v1", model="m"}', "gates=none"]
    plan, root = load_plan("translate-distill", [*openai, f"source.path={tmp_path}/none"], data_needed=False)
    amounts = measure(plan.steps, lambda step: find_size(step, root, {}))
    asked = {step.name: endpoint_requests(step, amounts[step.id]) for step in plan.steps}
    assert asked["translate-zh"] == DOCS
    assert asked["score"] == 0
