"""The atlas collection, compared with facts known by hand, Unicode character names, and plain text search."""

import os
import re
import subprocess
import sys
import unicodedata
from collections import Counter, defaultdict
from functools import cache

import pytest

from pipelines.sources.atlas import AtlasSource
from pipelines.sources.atlas.facts import list_facts
from pipelines.sources.atlas.names import Writer
from pipelines.sources.atlas.questions import QUESTIONS
from pipelines.sources.atlas.regions import map_regions
from pipelines.sources.atlas.source import BOOKS

SPLITS = ("train", "dev", "test")
LANGUAGES = ("en", "de", "fr", "es", "zh", "fa", "ru")
SCRIPTS = {"zh": "CJK", "fa": "ARABIC", "ru": "CYRILLIC"}


@cache
def open_atlas() -> AtlasSource:
    return AtlasSource()


@cache
def read_texts(lang: str, split: str = "all") -> dict[str, str]:
    return {entry.row["doc_id"]: entry.row["text"] for entry in open_atlas().docs(lang, split)}


@cache
def read_questions(split: str) -> dict[str, str]:
    return {entry.row["query_id"]: entry.row["text"] for entry in open_atlas().queries("en", split)}


@cache
def read_qrels(split: str) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for entry in open_atlas().qrels("en", split):
        found[entry.row["query_id"]][entry.row["doc_id"]] = entry.row["relevance"]
    return found


def test_every_language_has_the_same_passages():
    ids = list(read_texts("en"))
    assert open_atlas().languages() == LANGUAGES
    assert len(ids) == len(set(ids)) > 3500
    for lang in LANGUAGES:
        assert list(read_texts(lang)) == ids
        assert all(entry.row["lang"] == lang for entry in open_atlas().docs(lang, "dev"))


def test_splits_share_no_passage_and_have_the_documented_sizes():
    parts = [set(read_texts("en", split)) for split in SPLITS]
    assert set.union(*parts) == set(read_texts("en"))
    assert sum(map(len, parts)) == len(read_texts("en"))
    train, dev, test = (len(part) / len(read_texts("en")) for part in parts)
    assert 0.13 < test < 0.17
    assert 0.07 < dev < 0.09


def test_no_question_text_or_phrasing_is_in_two_splits():
    for kind, by_split in QUESTIONS.items():
        phrasings = [p for split in SPLITS for p in by_split[split]]
        assert len(phrasings) == len(set(phrasings)), kind
        assert len(by_split["train"]) >= 4
        assert all(len(by_split[split]) >= 2 for split in ("dev", "test"))
    seen = [set(read_questions(split).values()) for split in SPLITS]
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]
    ids = [query_id for split in SPLITS for query_id in read_questions(split)]
    assert len(ids) == len(set(ids)) == len(read_questions("all"))


@pytest.mark.parametrize("split", SPLITS)
def test_relevant_passages_are_in_the_split_of_their_question(split):
    """Otherwise an inverse or aggregated passage in training would contain the answer to a test question."""
    own = set(read_texts("en", split))
    assert set(read_qrels(split)) == set(read_questions(split))
    for query_id, relevant in read_qrels(split).items():
        assert sorted(relevant.values())[-1:] == [2], query_id
        assert list(relevant.values()).count(2) == 1
        assert set(relevant) <= own, query_id


def test_no_training_passage_states_a_held_out_currency_language_or_city():
    """Search the English text for the two names of a held-out fact, independent of groups and ids."""
    train = read_texts("en", "train")
    pairs = {"currency": ("T", "C"), "city": ("Z", "T"), "official": ("T", "L"), "script": ("L", "S")}
    kinds = {
        "currency": ("currency", "usedin"),
        "city": ("city", "zone"),
        "official": ("official", "officialin"),
        "script": ("script",),
    }
    writer = Writer("en", BOOKS["en"])
    names = {writer.write(reference) for fact in list_facts(None) for reference in fact.list_names()}

    def mentions(text: str, name: str) -> bool:
        for longer in (n for n in names if name in n and n != name):  # "Swiss German" does not count as "German"
            text = text.replace(longer, "")
        return re.search(rf"\b{re.escape(name)}\b", text) is not None

    checked = 0
    for fact in list_facts(None):
        if fact.kind in pairs and fact.doc_id not in train:
            first, second = (writer.write(fact.slots[slot]) for slot in pairs[fact.kind])
            pool = [t for i, t in train.items() if i.split("-")[0] in kinds[fact.kind] and first in t and second in t]
            assert not [t for t in pool if mentions(t, first) and mentions(t, second)], fact.doc_id
            checked += 1
    assert checked > 80


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_name_of_a_held_out_fact_is_in_three_training_passages(lang):
    """Count the names in the training text itself, with their forms in "in T", since German declines a few names."""
    pool = "\n".join(read_texts(lang, "train").values()).casefold()
    train = set(read_texts(lang, "train"))
    writer = Writer(lang, BOOKS[lang])
    counted: Counter[str] = Counter()
    for fact in list_facts(None):
        if fact.doc_id in train:
            continue
        for reference in fact.list_names():
            forms = {writer.write(reference).casefold()}
            if reference[0] == "T":
                forms.add(writer.write_slots({"T": reference})["inT"].casefold())
            forms |= {form.removeprefix("le ") for form in forms if lang == "fr"}  # "du Caire", "au Caire"
            counted[reference] = min(3, max(pool.count(form) for form in forms))
    assert len(counted) > 400
    assert {reference: n for reference, n in counted.items() if n < 3} == {}


@pytest.mark.parametrize("lang", LANGUAGES)
def test_passages_are_clean_text(lang):
    for doc_id, text in read_texts(lang).items():
        assert not re.search(r"[{}\[\]|]|None|  |\s[.,](?!\w)|\.\.|^\s|\s$|[\u200e\u200f]", text), (doc_id, text)
        assert text == unicodedata.normalize("NFC", text) or lang not in ("en", "de", "fr", "es", "ru"), (doc_id, text)
        assert text[-1] in ("。" if lang == "zh" else "."), (doc_id, text)
        assert not text[0].islower(), (doc_id, text)
        assert len(text) < 260


def test_punctuation_follows_the_language():
    for text in read_texts("zh").values():
        assert not re.search(r"[,;?!()]|\. |[\u4e00-\u9fff] [\u4e00-\u9fff]", re.sub("“[^”]*”", "", text)), text
    for text in read_texts("fa").values():
        assert not re.search("[,;?]|[0-9](?=[۰-۹])|\u0643|\u064a", re.sub("«[^»]*»", "", text)), text
    for text in read_texts("fr").values():
        assert not re.search(r" [:;?!»]|« | de [AEIO]", text), text
        assert not re.search("[^\u00a0][;»]|«[^\u00a0]", text), text
    for text in read_texts("de").values():
        assert text.count("„") == text.count("“"), text
    for lang in ("es", "ru"):
        for text in read_texts(lang).values():
            assert text.count("«") == text.count("»"), text


@pytest.mark.parametrize("lang", LANGUAGES)
def test_passages_are_in_the_script_of_the_language(lang):
    wanted = SCRIPTS.get(lang, "LATIN")
    shares = []
    for text in read_texts(lang).values():
        bare = re.sub(r"“[^“”]*”|„[^“]*“|«[^»]*»", "", text)  # native names are quoted in their own script
        bare = re.sub(
            r"[A-Za-z]+(/[A-Za-z_]+)+|(?<![A-Za-z])([A-Z]{2,4}|[A-Z][a-z]{3}|\.?[a-z]{2})(?![A-Za-z])", "", bare
        )
        letters = [unicodedata.name(c, "?") for c in bare if c.isalpha()]
        if letters:
            shares.append(sum(wanted in name for name in letters) / len(letters))
    assert sum(shares) / len(shares) > 0.97
    assert sum(share < 0.6 for share in shares) < 0.02 * len(shares)


def test_phrasebooks_are_complete():
    kinds = {fact.kind for fact in list_facts(None)}
    places = set(map_regions())
    for lang, book in BOOKS.items():
        assert set(book.phrases) == kinds == set(QUESTIONS), lang
        assert all(len(set(phrasings)) >= 3 for phrasings in book.phrases.values()), lang
        assert set(book.places) | book.definite | book.plural <= places, lang


KNOWN = {
    "en": ("Japan", "Japanese yen", "Tokyo", "Japanese", "Asia"),
    "de": ("Japan", "Japanischer Yen", "Tokio", "Japanisch", "Asien"),
    "fr": ("Japon", "yen japonais", "Tokyo", "japonais", "Asie"),
    "es": ("Japón", "yen japonés", "Tokio", "japonés", "Asia"),
    "zh": ("日本", "日元", "东京", "日语", "亚洲"),
    "fa": ("ژاپن", "ین ژاپن", "توکیو", "ژاپنی", "آسیا"),
    "ru": ("Япония", "японская иена", "Токио", "японский", "Азия"),
}


@pytest.mark.parametrize("lang", LANGUAGES)
def test_facts_about_japan_in_every_language(lang):
    japan, yen, tokyo, japanese, asia = (word.casefold() for word in KNOWN[lang])
    found = {doc_id: text.casefold() for doc_id, text in read_texts(lang).items()}
    assert japan in found["currency-JP"]
    assert yen in found["currency-JP"]
    assert "jpy" in found["iso4217-JPY"]
    assert yen in found["iso4217-JPY"]
    assert tokyo in found["city-Asia.Tokyo"]
    assert japan in found["city-Asia.Tokyo"]
    assert japanese in found["official-JP"]
    assert asia in found["region-JP"]
    assert "utc+9" in found["offset-Asia.Tokyo"]
    assert ".jp" in found["domain-JP"]
    assert "jpn" in found["code-JP"]


@pytest.mark.parametrize(
    ("doc_id", "words"),
    [
        ("currency-IR", "Iranian rial"), ("script-fa", "Arabic"), ("script-ru", "Cyrillic"), ("code-FR", "FRA"),
        ("offset-Asia.Tehran", "UTC+3:30"), ("offset-Europe.Paris", "UTC+1"), ("offset-America.New_York", "UTC−5"),
        ("former-DE", "German mark"), ("decimals-JPY", "0"), ("region-BR", "South America"), ("domain-GB", ".uk"),
        ("week-US", "Sunday"), ("week-DE", "Monday"), ("clock-US", "12-hour"), ("clock-DE", "24-hour"),
        ("dates-US", "month, day, year"), ("decimal-DE", "comma"), ("ownname-FI", "Suomi"), ("autonym-el", "Ελληνικά"),
        ("official-BE", "Dutch, French, and German"), ("usedin-CHF", "Switzerland"),
        ("position-Asia.Tokyo", "36° north"),
    ],
)  # fmt: skip
def test_english_facts_known_by_hand(doc_id, words):
    assert words in read_texts("en")[doc_id]


def test_the_collection_does_not_depend_on_the_hash_seed():
    code = """
import hashlib
from pipelines.sources.atlas import AtlasSource
atlas, digest = AtlasSource(territories=12), hashlib.sha256()
for entry in (*atlas.docs("fa", "train"), *atlas.queries("en", "test"), *atlas.qrels("en", "all")):
    digest.update(repr(entry).encode())
print(digest.hexdigest())
"""
    digests = {
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, check=True, capture_output=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_territories_seed_and_questions_per_fact():
    small, other = AtlasSource(territories=12), AtlasSource(territories=12, seed=7)
    ids = {entry.row["doc_id"] for entry in small.docs("en", "all")}
    assert 100 < len(ids) < 600
    assert {entry.row["doc_id"] for entry in other.docs("en", "all")} == ids
    assert {e.row["doc_id"] for e in other.docs("en", "test")} != {e.row["doc_id"] for e in small.docs("en", "test")}
    three = AtlasSource(territories=12, questions_per_fact=3)
    assert len(list(three.queries("en", "train"))) == 3 * len(list(three.docs("en", "train")))
    assert len(list(three.queries("en", "test"))) == len(list(three.docs("en", "test")))


def test_errors_of_wrong_arguments_list_the_choices():
    with pytest.raises(ValueError, match="en, de, fr, es, zh, fa, ru; got 'xx'"):
        list(open_atlas().docs("xx", "train"))
    with pytest.raises(ValueError, match="train, dev, test, all; got 'valid'"):
        list(open_atlas().docs("en", "valid"))
    with pytest.raises(ValueError, match="questions among en; got 'de'"):
        list(open_atlas().queries("de", "train"))
    with pytest.raises(ValueError, match="install those versions"):
        AtlasSource(made_with="babel 1.0, cldr 1, tzdata 1")


def test_english_questions_find_their_english_passages():
    """BM25 must find most passages: questions without words of their passage would be noise in training."""
    import bm25s

    ids = list(read_texts("en"))
    retriever = bm25s.BM25()
    retriever.index(bm25s.tokenize(list(read_texts("en").values()), show_progress=False), show_progress=False)
    tokens = bm25s.tokenize(list(read_questions("test").values()), show_progress=False)
    ranked, _ = retriever.retrieve(tokens, k=10, show_progress=False)
    best = [next(d for d, r in read_qrels("test")[q].items() if r == 2) for q in read_questions("test")]
    hits = [doc_id in {ids[i] for i in row} for doc_id, row in zip(best, ranked, strict=True)]
    assert sum(hits) / len(hits) > 0.8
