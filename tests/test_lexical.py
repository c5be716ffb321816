"""The lexical student: letters, sentence and word alignment, and the module as sentence-transformers sees it."""

import math
import subprocess
import sys
from collections import defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import MultiVectorEncoder

from artifacts import table_artifact
from cluster.storage import Place
from pipelines.docstore import Docstore
from pipelines.students import Corpus, Lexical, load_encoder
from pipelines.students.lexical.bitext import aligned, sentences
from pipelines.students.lexical.ibm1 import NULL, both_directions, cooccurrence
from pipelines.students.lexical.letters import LetterVectors, spelled
from pipelines.students.lexical.words import romanised, skeleton, spans, words
from pipelines.tables import DOCS, QUERIES
from pipelines.training.start import BuildStudent, StartConfig

A, B = "a".__mul__, "b".__mul__
STUDENT = Lexical(words=None, dim=64, ngram_rows=4096)
THINGS = [
    *("castle", "river", "mountain", "baker", "soldier", "window", "garden", "horse", "letter", "winter", "bridge"),
    *("candle", "doctor", "island", "mirror"),
]
DEEDS = ["sees", "finds", "wants", "leaves", "paints", "guards", "carries", "forgets"]
SECRET = str.maketrans("abcdefghijklmnopqrstuvwxyz", "жшщъыэюябвгдезийклмнопрсту")


def foreign(text):
    """The same words in another language: reversed, in other letters, so that nothing in their look remains."""
    return " ".join(w[::-1].translate(SECRET) for w in text.split())


def make_texts():
    """Passages of two sentences, in English and in the other language."""
    random = np.random.default_rng(0)
    docs = []
    for _ in range(150):
        one, other = random.choice(THINGS, 2)
        docs.append(" ".join(f"{one} {deed} {other}." for deed in random.choice(DEEDS, 2)))
    theirs = [". ".join(foreign(s) for s in doc.rstrip(".").split(". ")) + "." for doc in docs]
    return {"en": docs, "xx": theirs}


def make_queries():
    asked = [f"who {deed} the {thing}" for deed, thing in zip(DEEDS, THINGS, strict=False)]
    return [{"query_id": f"q{n}", "lang": "en", "text": text} for n, text in enumerate(asked)]


def make_corpus(root, langs=("en", "xx")):
    texts = make_texts()
    rows = {
        lang: [{"doc_id": f"d{n}", "lang": lang, "title": "", "text": text} for n, text in enumerate(texts[lang])]
        for lang in langs
    }
    docs = {lang: Docstore.open(table_artifact(root / f"{lang}@0", DOCS, rows[lang])) for lang in langs}
    return Corpus(Docstore.open(table_artifact(root / "q@0", QUERIES, make_queries())), docs)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def start(corpus):
    return STUDENT.build(corpus, seed=1)


@pytest.fixture(scope="module")
def warmed(corpus):
    encoder = STUDENT.build(corpus, seed=1)
    return encoder, STUDENT.warm_up(encoder, corpus, seed=1)


def cosine(encoder, one, other):
    (a,), (b,) = encoder.encode_docs([one, other])
    return float(a @ b)


def test_words_of_many_scripts():
    assert words("Don't 3,5 Шопен") == ["don", "t", "3,5", "шопен"]
    assert words("北京大学 in") == ["北京", "京大", "大学", "in"]
    assert words("書 हिन्दी में العَرَبِيَّة") == ["書", "हिन्दी", "में", "العَرَبِيَّة"]
    assert words("Cafe\u0301 ＡＢ") == ["café", "ab"]
    assert words("…") == []
    text = "Die Hauptstadt 北京大学, 2001!"
    assert [text[a:b] for a, b in spans(text)] == ["Die", "Hauptstadt", "北京", "京大", "大学", "2001"]


def test_romanised_and_skeleton():
    assert romanised("Шопен".lower()) == "shopen"
    assert skeleton("chopin") == skeleton("шопен") == "sbn"
    assert skeleton("1984") == skeleton("北京") == ""
    assert romanised("☃").isalnum()


def test_letter_vectors_against_a_naive_sum():
    """The n-grams of a word, hashed one by one in Python's integers."""
    made = LetterVectors(32, 1024, (3, 4), skeleton=0.0, seed=5)
    alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"

    def row(codes, size, salt=1):
        key = (sum(c * 39**k for k, c in enumerate(codes)) * 8 + size) * 8 + salt
        wrapped = (key * ((-7046029254386353131) % 2**64)) % 2**64
        return ((wrapped >> 33) & 0x3FFFFFFF) % 1024  # the sign bits that the arithmetic shift brings are masked off

    for word in ("paris", "a", "1984", "b2"):
        codes = [alphabet.index(c) + 1 for c in word]
        rows = [row(codes, 0)]
        if not word.isdigit():
            bounded = [37, *codes, 38]
            rows += [row(bounded[i : i + n], n) for n in (3, 4) for i in range(len(bounded) - n + 1)]
        naive = made.signs[rows].sum(0)
        torch.testing.assert_close(
            made(torch.from_numpy(spelled([word])))[0], naive / naive.norm(), atol=1e-6, rtol=1e-5
        )


def test_same_seed_same_weights(corpus, start):
    torch.rand(3)
    again, other = STUDENT.build(corpus, seed=1), STUDENT.build(corpus, seed=2)
    for name, value in start.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    np.testing.assert_array_equal(start.encode_docs(["castle"])[0], again.encode_docs(["castle"])[0])
    assert not np.allclose(start.encode_docs(["castle"])[0], other.encode_docs(["castle"])[0])


def test_vectors_are_of_words(start):
    docs = start.encode_docs(["castle sees castle", "unheard of", ""])
    assert [len(d) for d in docs] == [2, 2, 1]
    for vectors in docs[:2]:
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    (query,) = start.encode_queries(["who sees who"])
    assert len(query) == 3


def test_query_weights_are_idf(corpus, start):
    asked = ["who", "castle", "neverseen"]
    (vectors,) = start.encode_queries([" ".join(asked)])
    weights = dict(zip(asked, np.linalg.norm(vectors, axis=1), strict=True))
    docs = [set(words(corpus.docs["en"].text_at(n))) for n in range(150)]
    queries = [set(words(corpus.queries.text_at(n))) for n in range(len(corpus.queries))]

    def naive(word):
        shares = [(sum(word in t for t in texts) + 0.5) / (len(texts) + 1) for texts in (docs, queries)]
        return 0.05 - math.log(min(0.99, max(shares)))

    assert weights == pytest.approx({w: naive(w) for w in weights}, rel=1e-5)
    assert weights["who"] < weights["castle"] < weights["neverseen"]


def test_letters_carry_names_across_scripts(start):
    assert cosine(start, "Zürich", "zürich") == pytest.approx(1, abs=1e-6)
    assert cosine(start, "北京", "北京") == pytest.approx(1, abs=1e-6)
    for one, other in (("Chopin", "Шопен"), ("Moscow", "Москва"), ("Newton", "نيوتن")):
        assert cosine(start, one, other) > 0.25
        assert cosine(start, one, other) > cosine(start, one, "винтовка") + 0.15
    assert abs(cosine(start, "1990", "1991")) < 0.5  # numbers are equal or not


def test_saved_student_opens_here_and_in_the_library(warmed, tmp_path):
    encoder, texts = warmed[0], ["castle sees the unheard", "Шопен 北京", "long " * 400]
    encoder.save(tmp_path / "s")
    again = load_encoder(tmp_path / "s", "cpu")
    for ours, other in ((encoder.encode_docs, again.encode_docs), (encoder.encode_queries, again.encode_queries)):
        for a, b in zip(ours(texts), other(texts), strict=True):
            np.testing.assert_array_equal(a, b)
    code = f"""
import sys, numpy as np
from sentence_transformers import MultiVectorEncoder
model = MultiVectorEncoder({str(tmp_path / "s")!r}, device="cpu", trust_remote_code=True)
texts = {texts!r}
np.savez({str(tmp_path / "v.npz")!r}, *model.encode_document(texts), *model.encode_query(texts))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    theirs = np.load(tmp_path / "v.npz")
    for n, ours in enumerate([*encoder.encode_docs(texts), *encoder.encode_queries(texts)]):
        np.testing.assert_allclose(ours, theirs[f"arr_{n}"], atol=1e-6)
    with pytest.raises(ValueError, match="trust_remote_code"):  # the library's rule for modules that are not its own
        MultiVectorEncoder(str(tmp_path / "s"), device="cpu")


def test_windows_count_words(start):
    some = [a + b for a in "abcdefghij" for b in "klmnopqrst"]
    assert start.windows([" ".join(some)], length=40, stride=30) == [[" ".join(some[a : a + 40]) for a in (0, 30, 60)]]
    assert len(start.rows(["word " * 999], "query")[0]["input_ids"]) == STUDENT.query_length


@pytest.mark.parametrize(
    ("one", "other", "pairs"),
    [
        ([A(50), B(80)], [A(55), B(78)], [(A(50), A(55)), (B(80), B(78))]),
        ([A(100), B(30)], [A(48), A(50), B(31)], [(A(100), f"{A(48)} {A(50)}"), (B(30), B(31))]),
        ([A(40), A(60), B(30)], [A(101), B(30)], [(f"{A(40)} {A(60)}", A(101)), (B(30), B(30))]),
        ([], ["a"], []),
        (["a"], [], []),
    ],
    ids=["1-1", "1-2", "2-1", "empty", "no partner"],
)  # fmt: skip
def test_sentences_are_paired_by_length(one, other, pairs):
    assert aligned(one, other) == pairs


def test_sentences_end_at_final_marks_of_each_script():
    assert [s.strip() for s in sentences("One. Two? 三。四！ पाँच। छह")] == [
        "One.",
        "Two?",
        "三。",
        "四！",
        "पाँच।",
        "छह",
    ]


SENTENCES = st.lists(
    st.tuples(st.lists(st.sampled_from("abcde"), max_size=4), st.lists(st.sampled_from("vwxyz"), max_size=4)),
    max_size=6,
)


@settings(deadline=None, max_examples=60)
@given(SENTENCES, st.integers(1, 4))
def test_model_1_against_dictionaries(pairs, iterations):
    found = cooccurrence(pairs)
    for direction, table in enumerate(both_directions(found, iterations)):
        naive = naive_model_1([p if direction == 0 else p[::-1] for p in pairs], iterations)
        keys = list(
            zip((found.one[i] for i in found.cell_one), (found.other[i] for i in found.cell_other), strict=True)
        )
        ours = {key if direction == 0 else key[::-1]: value for key, value in zip(keys, table, strict=True)}
        assert ours.keys() == naive.keys()
        for key, value in naive.items():
            assert ours[key] == pytest.approx(value, abs=1e-9)


def naive_model_1(pairs, iterations):
    """p(target | source) by EM over dictionaries (Brown et al. 1993), with a constant empty word."""
    pairs = [(sorted(set(s)), sorted(set(t))) for s, t in pairs]
    cells = {(s, t) for sources, targets in pairs for s in sources for t in targets}
    p = {(s, t): 1 / sum(a == s for a, _ in cells) for s, t in cells}
    for _ in range(iterations):
        empty = NULL * sum(p.values()) / max(1, len(p))
        count = defaultdict(float)
        for sources, targets in pairs:
            for t in targets:
                total = empty + sum(p[s, t] for s in sources)
                for s in sources:
                    count[s, t] += p[s, t] / total
        of = defaultdict(float)
        for (s, _), c in count.items():
            of[s] += c
        p = {(s, t): c / of[s] for (s, t), c in count.items()}
    return p


def first_hits(encoder, corpus):
    """How many English passages find their translation first."""
    docs = list(dict.fromkeys(corpus.docs["xx"].text_at(n) for n in range(150)))
    originals = list(dict.fromkeys(corpus.docs["en"].text_at(n) for n in range(150)))
    vectors = encoder.encode_docs(docs)
    found = [
        max(range(len(docs)), key=lambda n: (q @ vectors[n].T).max(1).sum()) for q in encoder.encode_queries(originals)
    ]
    return float(np.mean([n == at for at, n in enumerate(found)]))


def test_alignment_finds_translations(corpus, start, warmed):
    encoder, facts = warmed
    assert set(facts["aligned"]) == {"xx"}
    assert facts["aligned"]["xx"] == {"sentence_pairs": 300, "words": len(THINGS) + len(DEEDS)}
    for word in THINGS:
        nearest = max(THINGS, key=lambda other: cosine(encoder, foreign(word), other))
        assert nearest == word
    assert first_hits(encoder, corpus) > 0.9 > 0.3 > first_hits(start, corpus)


def test_unknown_words_borrow_from_their_kin(warmed):
    encoder, _ = warmed
    known, inflected = foreign("mountain"), foreign("mountain") + "ами"
    assert inflected not in encoder.model[0].ids
    assert cosine(encoder, inflected, "mountain") > 0.3 > cosine(encoder, inflected, "horse")
    assert cosine(encoder, inflected, known) > 0.7


def test_warm_up_is_deterministic_and_keeps_to_its_cap(corpus):
    few = STUDENT.model_copy(update={"align_pairs": 40})
    one, other = few.build(corpus, 1), few.build(corpus, 1)
    facts = few.warm_up(one, corpus, 7)
    few.warm_up(other, corpus, 7)
    assert facts["aligned"]["xx"]["sentence_pairs"] == 40
    assert torch.equal(one.model[0].word_rows, other.model[0].word_rows)
    few.warm_up(other := few.build(corpus, 1), corpus, 8)
    assert not torch.equal(one.model[0].word_rows, other.model[0].word_rows)


def test_one_language_teaches_nothing_of_others(tmp_path):
    english = make_corpus(tmp_path, langs=("en",))
    encoder = STUDENT.build(english, seed=1)
    before = {name: value.clone() for name, value in encoder.model.state_dict().items()}
    assert STUDENT.warm_up(encoder, english, seed=1)["aligned"] == {}
    assert all(torch.equal(value, before[name]) for name, value in encoder.model.state_dict().items())
    assert not set("жшщ") & {c for word in encoder.model[0].vocabulary for c in word}


def test_the_start_step_leaves_the_student_before_and_after_its_warm_up(tmp_path):
    texts, docs = make_texts(), {}
    for lang in ("en", "xx"):
        rows = [{"doc_id": f"d{n}", "lang": lang, "title": "", "text": t} for n, t in enumerate(texts[lang])]
        docs[lang] = table_artifact(tmp_path / f"docs-{lang}@0", DOCS, rows)
    queries = table_artifact(tmp_path / "queries@0", QUERIES, make_queries())
    build = BuildStudent(
        StartConfig(student=STUDENT, seed=1), {"main": {"queries": queries, "docs": docs}}, Place.of(tmp_path)
    )
    facts = build("student")
    assert facts["warm_up"]["aligned"]["xx"]["words"] == len(THINGS) + len(DEEDS)
    start, warm = (load_encoder(tmp_path / name, "cpu") for name in ("start", "warm"))
    assert not start.model[0].word_rows.any()
    assert cosine(warm, foreign("castle"), "castle") > 0.8 > cosine(start, foreign("castle"), "castle")


def test_gradients_reach_every_learned_part(start):
    docs, mask = start.embed(start.rows(["castle sees", "castles unheard"], "document"), "document")
    queries, _ = start.embed(start.rows(["who sees castles"], "query"), "query")
    ((queries[0] @ docs.flatten(0, 1).T).max(1).values.sum() + docs[mask].sum()).backward()
    module = start.model[0]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
    assert not module.word_rows.grad[0].any()  # nobody's row
    start.model.zero_grad()


def test_a_word_that_is_not_in_the_text_learns_nothing(start):
    vectors, mask = start.embed(start.rows(["castle"], "document"), "document")
    vectors[mask][:, 0].sum().backward()
    moved = start.model[0].word_rows.grad.any(1).nonzero().flatten().tolist()
    start.model.zero_grad()
    assert moved == [start.model[0].ids["castle"]]
