"""The lexical student: letter vectors, sentence and word alignment, and its module in sentence-transformers."""

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
from pipelines.students.lexical.bitext import align_sentences, split_sentences
from pipelines.students.lexical.ibm1 import NULL, estimate_translations, find_cooccurrence
from pipelines.students.lexical.letters import LetterVectors, encode_letters
from pipelines.students.lexical.words import build_skeleton, find_spans, romanise, split_words
from pipelines.tables import DOCS, QUERIES
from pipelines.training.start import BuildStudent, StartConfig

A, B = "a".__mul__, "b".__mul__
STUDENT = Lexical(words=None, dim=64, ngram_rows=4096)
NOUNS = [
    *("castle", "river", "mountain", "baker", "soldier", "window", "garden", "horse", "letter", "winter", "bridge"),
    *("candle", "doctor", "island", "mirror"),
]
VERBS = ["sees", "finds", "wants", "leaves", "paints", "guards", "carries", "forgets"]
FOREIGN_LETTERS = str.maketrans("abcdefghijklmnopqrstuvwxyz", "жшщъыэюябвгдезийклмнопрсту")


def to_foreign(text):
    """Translate into an invented language: words reversed and in other letters, so that no similarity is left."""
    return " ".join(w[::-1].translate(FOREIGN_LETTERS) for w in text.split())


def make_texts():
    """Make 150 passages of two sentences by language: English, and its translation into the invented language."""
    random = np.random.default_rng(0)
    docs = []
    for _ in range(150):
        one, other = random.choice(NOUNS, 2)
        docs.append(" ".join(f"{one} {verb} {other}." for verb in random.choice(VERBS, 2)))
    translations = [". ".join(to_foreign(s) for s in doc.rstrip(".").split(". ")) + "." for doc in docs]
    return {"en": docs, "xx": translations}


def make_queries():
    questions = [f"who {verb} the {noun}" for verb, noun in zip(VERBS, NOUNS, strict=False)]
    return [{"query_id": f"q{n}", "lang": "en", "text": text} for n, text in enumerate(questions)]


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
def untrained(corpus):
    return STUDENT.build(corpus, seed=1)


@pytest.fixture(scope="module")
def aligned(corpus):
    encoder = STUDENT.build(corpus, seed=1)
    return encoder, STUDENT.warm_up(encoder, corpus, seed=1)


def cosine(encoder, one, other):
    (a,), (b,) = encoder.encode_docs([one, other])
    return float(a @ b)


def test_splits_words_of_many_scripts():
    assert split_words("Don't 3,5 Шопен") == ["don", "t", "3,5", "шопен"]
    assert split_words("北京大学 in") == ["北京", "京大", "大学", "in"]
    assert split_words("書 हिन्दी में العَرَبِيَّة") == ["書", "हिन्दी", "में", "العَرَبِيَّة"]
    assert split_words("Cafe\u0301 ＡＢ") == ["café", "ab"]
    assert split_words("…") == []
    text = "Die Hauptstadt 北京大学, 2001!"
    assert [text[a:b] for a, b in find_spans(text)] == ["Die", "Hauptstadt", "北京", "京大", "大学", "2001"]


def test_romanises_words_and_reduces_them_to_consonants():
    assert romanise("Шопен".lower()) == "shopen"
    assert build_skeleton("chopin") == build_skeleton("шопен") == "sbn"
    assert build_skeleton("1984") == build_skeleton("北京") == ""
    assert romanise("☃").isalnum()


def test_letter_vectors_equal_a_naive_sum_over_ngrams():
    """The oracle hashes the n-grams of a word one by one in Python's integers."""
    module = LetterVectors(32, 1024, (3, 4), skeleton=0.0, seed=5)
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
        naive = module.signs[rows].sum(0)
        torch.testing.assert_close(
            module(torch.from_numpy(encode_letters([word])))[0], naive / naive.norm(), atol=1e-6, rtol=1e-5
        )


def test_same_seed_gives_same_weights_and_another_seed_others(corpus, untrained):
    torch.rand(3)
    again, other = STUDENT.build(corpus, seed=1), STUDENT.build(corpus, seed=2)
    for name, value in untrained.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    np.testing.assert_array_equal(untrained.encode_docs(["castle"])[0], again.encode_docs(["castle"])[0])
    assert not np.allclose(untrained.encode_docs(["castle"])[0], other.encode_docs(["castle"])[0])


def test_encodes_one_vector_per_distinct_word_of_a_document(untrained):
    docs = untrained.encode_docs(["castle sees castle", "unheard of", ""])
    assert [len(d) for d in docs] == [2, 2, 1]
    for vectors in docs[:2]:
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    (query,) = untrained.encode_queries(["who sees who"])
    assert len(query) == 3


def test_query_weights_equal_a_naive_idf(corpus, untrained):
    terms = ["who", "castle", "neverseen"]
    (vectors,) = untrained.encode_queries([" ".join(terms)])
    weights = dict(zip(terms, np.linalg.norm(vectors, axis=1), strict=True))
    docs = [set(split_words(corpus.docs["en"].text_at(n))) for n in range(150)]
    queries = [set(split_words(corpus.queries.text_at(n))) for n in range(len(corpus.queries))]

    def naive(word):
        shares = [(sum(word in t for t in texts) + 0.5) / (len(texts) + 1) for texts in (docs, queries)]
        return 0.05 - math.log(min(0.99, max(shares)))

    assert weights == pytest.approx({w: naive(w) for w in weights}, rel=1e-5)
    assert weights["who"] < weights["castle"] < weights["neverseen"]


def test_names_in_two_scripts_are_similar_before_training(untrained):
    assert cosine(untrained, "Zürich", "zürich") == pytest.approx(1, abs=1e-6)
    assert cosine(untrained, "北京", "北京") == pytest.approx(1, abs=1e-6)
    for one, other in (("Chopin", "Шопен"), ("Moscow", "Москва"), ("Newton", "نيوتن")):
        assert cosine(untrained, one, other) > 0.25
        assert cosine(untrained, one, other) > cosine(untrained, one, "винтовка") + 0.15
    assert abs(cosine(untrained, "1990", "1991")) < 0.5  # different numbers are not similar, however close


def test_saved_student_gives_the_same_vectors_here_and_in_sentence_transformers(aligned, tmp_path):
    encoder, texts = aligned[0], ["castle sees the unheard", "Шопен 北京", "long " * 400]
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


def test_a_saved_student_is_used_without_transformers(untrained, tmp_path):
    untrained.save(tmp_path / "s")
    code = f"""
import sys
from pipelines.students import load_encoder
from pipelines.students.matches import match
encoder = load_encoder({str(tmp_path / "s")!r}, "cpu")
encoder.encode_queries(["who sees"]), encoder.encode_docs(["castle sees"])
list(encoder.encode_passages(["castle sees the river"], 2, 1)), match(encoder, "who sees", ["castle sees"], (40, 30))
print(sorted({{"transformers", "sentence_transformers", "sklearn", "ray"}} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_windows_and_query_length_count_words(untrained):
    terms = [a + b for a in "abcdefghij" for b in "klmnopqrst"]
    expected = [" ".join(terms[first : first + 40]) for first in (0, 30, 60)]
    assert untrained.windows([" ".join(terms)], length=40, stride=30) == [expected]
    assert len(untrained.rows(["word " * 999], "query")[0]["input_ids"]) == STUDENT.query_length


@pytest.mark.parametrize(
    ("source", "target", "pairs"),
    [
        ([A(50), B(80)], [A(55), B(78)], [(A(50), A(55)), (B(80), B(78))]),
        ([A(100), B(30)], [A(48), A(50), B(31)], [(A(100), f"{A(48)} {A(50)}"), (B(30), B(31))]),
        ([A(40), A(60), B(30)], [A(101), B(30)], [(f"{A(40)} {A(60)}", A(101)), (B(30), B(30))]),
        ([], ["a"], []),
        (["a"], [], []),
    ],
    ids=["1-1", "1-2", "2-1", "empty", "no partner"],
)  # fmt: skip
def test_sentences_are_paired_by_length(source, target, pairs):
    assert align_sentences(source, target) == pairs


def test_sentences_end_at_final_marks_of_each_script():
    assert [s.strip() for s in split_sentences("One. Two? 三。四！ पाँच। छह")] == [
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
def test_ibm_model_1_equals_em_over_dictionaries(pairs, iterations):
    cells = find_cooccurrence(pairs)
    for direction, table in enumerate(estimate_translations(cells, iterations)):
        naive = run_naive_model_1([p if direction == 0 else p[::-1] for p in pairs], iterations)
        keys = list(
            zip((cells.one[i] for i in cells.cell_one), (cells.other[i] for i in cells.cell_other), strict=True)
        )
        ours = {key if direction == 0 else key[::-1]: value for key, value in zip(keys, table, strict=True)}
        assert ours.keys() == naive.keys()
        for key, value in naive.items():
            assert ours[key] == pytest.approx(value, abs=1e-9)


def run_naive_model_1(pairs, iterations):
    """Estimate p(target | source) by EM over dictionaries (Brown et al. 1993, §4.1), with an empty word."""
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


def measure_hits(encoder, corpus):
    """Measure the share of English passages whose translation ranks first."""
    docs = list(dict.fromkeys(corpus.docs["xx"].text_at(n) for n in range(150)))
    originals = list(dict.fromkeys(corpus.docs["en"].text_at(n) for n in range(150)))
    vectors = encoder.encode_docs(docs)
    found = [
        max(range(len(docs)), key=lambda n: (q @ vectors[n].T).max(1).sum()) for q in encoder.encode_queries(originals)
    ]
    return float(np.mean([n == at for at, n in enumerate(found)]))


def test_alignment_finds_translations(corpus, untrained, aligned):
    encoder, facts = aligned
    assert set(facts["aligned"]) == {"xx"}
    assert facts["aligned"]["xx"] == {"sentence_pairs": 300, "words": len(NOUNS) + len(VERBS)}
    for word in NOUNS:
        nearest = max(NOUNS, key=lambda other: cosine(encoder, to_foreign(word), other))
        assert nearest == word
    assert measure_hits(encoder, corpus) > 0.9 > 0.3 > measure_hits(untrained, corpus)


def test_word_without_a_row_takes_the_rows_of_words_with_its_prefix(aligned):
    encoder, _ = aligned
    known, inflected = to_foreign("mountain"), to_foreign("mountain") + "ами"
    assert inflected not in encoder.model[0].ids
    assert cosine(encoder, inflected, "mountain") > 0.3 > cosine(encoder, inflected, "horse")
    assert cosine(encoder, inflected, known) > 0.7


def test_warm_up_depends_on_the_seed_alone_and_keeps_to_align_pairs(corpus):
    few = STUDENT.model_copy(update={"align_pairs": 40})
    one, other = few.build(corpus, 1), few.build(corpus, 1)
    facts = few.warm_up(one, corpus, 7)
    few.warm_up(other, corpus, 7)
    assert facts["aligned"]["xx"]["sentence_pairs"] == 40
    assert torch.equal(one.model[0].word_rows, other.model[0].word_rows)
    few.warm_up(other := few.build(corpus, 1), corpus, 8)
    assert not torch.equal(one.model[0].word_rows, other.model[0].word_rows)


def test_warm_up_changes_nothing_with_one_language(tmp_path):
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
    assert facts["warm_up"]["aligned"]["xx"]["words"] == len(NOUNS) + len(VERBS)
    start, warm = (load_encoder(tmp_path / name, "cpu") for name in ("start", "warm"))
    assert not start.model[0].word_rows.any()
    assert cosine(warm, to_foreign("castle"), "castle") > 0.8 > cosine(start, to_foreign("castle"), "castle")


def test_gradients_reach_every_parameter(untrained):
    docs, mask = untrained.embed(untrained.rows(["castle sees", "castles unheard"], "document"), "document")
    queries, _ = untrained.embed(untrained.rows(["who sees castles"], "query"), "query")
    ((queries[0] @ docs.flatten(0, 1).T).max(1).values.sum() + docs[mask].sum()).backward()
    module = untrained.model[0]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
    assert not module.word_rows.grad[0].any()  # row 0 belongs to no word
    untrained.model.zero_grad()


def test_only_words_of_the_text_get_gradients(untrained):
    vectors, mask = untrained.embed(untrained.rows(["castle"], "document"), "document")
    vectors[mask][:, 0].sum().backward()
    changed = untrained.model[0].word_rows.grad.any(1).nonzero().flatten().tolist()
    untrained.model.zero_grad()
    assert changed == [untrained.model[0].ids["castle"]]
