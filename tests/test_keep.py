"""Which synthetic queries stay: planted duplicates, foreign and off-topic queries go, and nothing else."""

import random

import pytest
from pydantic import ValidationError

from artifacts import table_artifact
from cluster.errors import RecipeError
from pipelines.ids import hash_ids
from pipelines.synthesis.base import EMPTY
from pipelines.synthesis.language import OTHERS, find_foreign, open_detector
from pipelines.synthesis.works import BEYOND, DUPLICATE, LANGUAGE, Cap, CapConfig, Keep, KeepConfig, normalise
from pipelines.tables import QUERIES, RANKINGS

LANGS = ("ar", "de", "en", "es", "ru", "zh")
SECOND = "not found among the first 2"


def questions(shared_data, lang: str) -> dict[str, str]:
    lines = (shared_data / "xquad" / f"queries.{lang}.tsv").read_text("utf-8").splitlines()
    return dict(line.split("\t", 1) for line in lines)


def queries_of(texts: dict[str, str | None], lang: str = "en") -> list[dict]:
    return [
        {"query_id": i, "lang": lang, "text": text, "reject": None if text is not None else "too long"}
        for i, text in texts.items()
    ]


def found_of(ids, places: dict[str, int]) -> list[dict]:
    """Each passage at its place among four; 0 where nothing is said."""
    rows = []
    for i in ids:
        others = [f"other-{n}" for n in range(3)]
        others.insert(places.get(i, 0), i)
        rows.append({"query_id": i, "doc_ids": others, "scores": [4.0, 3.0, 2.0, 1.0]})
    return rows


def keep_all(
    tmp_path, parts: list[list[dict]], found: list[list[dict]], lang: str, keep: int = 2
) -> dict[str, str | None]:
    """Rejects by id. Each part has a worker of its own."""
    every = table_artifact(tmp_path / "queries", QUERIES, *parts)
    rejects = {}
    for part, rankings in zip(parts, found, strict=True):
        work = Keep(KeepConfig(lang=lang, keep=keep), {"all": every})
        rows = QUERIES.conform(work(QUERIES.of(part), RANKINGS.of(rankings))).to_pylist()
        rejects |= {row["query_id"]: row["reject"] for row in rows}
    return rejects


@pytest.mark.parametrize("lang", LANGS)
def test_planted_queries_are_rejected_with_their_reasons_and_no_others(lang, shared_data, tmp_path):
    own, foreign = questions(shared_data, lang), questions(shared_data, "de" if lang != "de" else "en")
    texts = {normalise(text): i for i, text in own.items()}
    detector = open_detector(lang)
    texts = {i: own[i] for i in texts.values() if not find_foreign(detector, [own[i]])[0]}
    ids = list(texts)[:300]
    rng = random.Random(lang)
    planted: dict[str, str | None] = dict.fromkeys(ids)
    off_topic = rng.sample(ids[150:], 30)
    planted |= dict.fromkeys(off_topic, SECOND)
    rows = {i: texts[i] for i in ids}
    for number, i in enumerate(rng.sample(ids[:150], 25)):  # each after the one that it repeats
        copy = f"copy-{number}"
        rows[copy] = f"  {texts[i].upper() if number % 2 else texts[i]} !?"
        planted[copy] = DUPLICATE
    other = [
        text for text in {normalise(t): t for t in foreign.values()}.values() if find_foreign(detector, [text])[0]
    ][:25]
    for number, text in enumerate(other):
        rows[f"foreign-{number}"], planted[f"foreign-{number}"] = text, LANGUAGE
    rows["blank"], planted["blank"] = "¿?!", EMPTY
    rows["lost"], planted["lost"] = None, "too long"
    every = queries_of(rows, lang)
    found = found_of(
        rows, {i: 2 + n % 2 for n, i in enumerate(off_topic)} | {i: n % 2 for n, i in enumerate(ids[:100])}
    )
    cuts = [0, 90, 200, 201, len(every)]
    parts = [every[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]
    assert keep_all(tmp_path, parts, [found[a:b] for a, b in zip(cuts, cuts[1:], strict=False)], lang) == planted


def test_of_equal_queries_the_first_stays_whatever_part_it_is_in(tmp_path):
    """Also where the first is not found: which one stays is a function of the queries alone."""
    texts = [
        "Who built the bridge?",
        "who built  the BRIDGE",
        "Where is salt sold?",
        "Ｗho built the bridge ?!",
        "Where is the tower?",
    ]
    rows = queries_of({f"q{i}": text for i, text in enumerate(texts)})
    ids = [row["query_id"] for row in rows]
    expected = {"q0": SECOND, "q1": DUPLICATE, "q2": None, "q3": DUPLICATE, "q4": None}
    found = found_of(ids, {"q0": 3})
    for cuts in ([0, 5], [0, 1, 2, 3, 4, 5], [0, 3, 5]):
        parts = [(rows[a:b], found[a:b]) for a, b in zip(cuts, cuts[1:], strict=False)]
        folder = tmp_path / str(len(cuts))
        assert keep_all(folder, [p for p, _ in parts], [f for _, f in parts], "en") == expected


def test_a_query_that_was_rejected_or_not_searched_is_no_duplicate(tmp_path):
    rows = queries_of({"q0": None, "q1": "Who built the bridge?", "q2": "Where is salt sold?"})
    found = found_of(["q0", "q1"], {}) + [{"query_id": "q2", "reject": "the encoder made no vector"}]
    rejects = keep_all(tmp_path, [rows], [found], "en")
    assert rejects == {"q0": "too long", "q1": None, "q2": "the encoder made no vector"}


def test_words_that_differ_only_in_vowel_signs_are_no_duplicates():
    assert normalise("कल") != normalise("काल")
    assert normalise("Is 4.5 more?") == normalise("is 4 5 MORE")
    assert normalise("Straße") == normalise("STRASSE")


def test_the_cap_keeps_the_lowest_hashes_of_those_that_are_good(tmp_path):
    rows = queries_of({f"q{i}": None if i % 5 == 0 else f"query {i}" for i in range(100)})
    every = table_artifact(tmp_path / "kept", QUERIES, rows[:30], rows[30:])
    good = [row["query_id"] for row in rows if row["reject"] is None]
    expected = set(sorted(good, key=lambda i: hash_ids([i])[0])[:17])
    for most, left in ((17, expected), (80, set(good)), (1000, set(good))):
        out = []
        for part in (rows[30:], rows[:30]):
            out += QUERIES.conform(Cap(CapConfig(most=most), {"all": every})(QUERIES.of(part))).to_pylist()
        assert {row["query_id"] for row in out if row["reject"] is None} == left
        assert {row["reject"] for row in out if row["query_id"] in good} <= {None, BEYOND}
        assert {row["reject"] for row in out if row["query_id"] not in good} == {"too long"}


@pytest.mark.parametrize("lang", LANGS)
def test_questions_are_taken_to_be_in_their_language(lang, shared_data):
    detector = open_detector(lang)
    own = find_foreign(detector, list(questions(shared_data, lang).values()))
    assert sum(own) <= 0.005 * len(own)
    others = [text for other in LANGS if other != lang for text in questions(shared_data, other).values()]
    assert sum(find_foreign(detector, others)) >= 0.98 * len(others)


def test_names_in_latin_letters_do_not_make_a_query_foreign():
    assert find_foreign(open_detector("zh"), ["什么是 Engineering News-Record？", "What is it?"]) == [False, True]
    assert find_foreign(open_detector("zh-Hant"), ["什麼是 DECnet？"]) == [False]


def test_a_language_that_cannot_be_detected_is_refused_before_anything_runs():
    with pytest.raises(RecipeError, match=r"lingua knows no 'yue'.*languages\.original"):
        KeepConfig(lang="yue")
    with pytest.raises(ValidationError, match="keep"):
        KeepConfig(lang="en", keep=0)
    for lang in OTHERS:
        KeepConfig(lang=lang)
