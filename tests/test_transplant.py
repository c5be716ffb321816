"""The base transplant: English stays as it is, a new word stands where its translation stands, and no code of ours."""

import subprocess
import sys
from copy import deepcopy

import numpy as np
import pytest

from artifacts import table_artifact
from cluster.errors import RecipeError, StepError
from pipelines.models import resolve
from pipelines.students import Corpus, Dense, load_encoder
from pipelines.students.lexical.ibm1 import estimate_translations, find_cooccurrence
from pipelines.students.transplant import Transplant
from pipelines.students.transplant.fit import fit_rows
from pipelines.students.transplant.sentences import Pair, Sentences
from pipelines.students.transplant.vocabulary import extend_tokenizer
from pipelines.tables import DOCS

pytestmark = pytest.mark.usefixtures("one_thread")

WORDS = {
    "house": ("дом", "房子"),
    "river": ("река", "河流"),
    "king": ("король", "国王"),
    "bread": ("хлеб", "面包"),
    "winter": ("зима", "冬天"),
    "music": ("музыка", "音乐"),
}
FORMS = {"en": "the {} and the {}", "ru": "{} и {}", "zh": "{}和{}"}


def sentences():
    """Every two words in every language."""
    for a, of_a in WORDS.items():
        for b, of_b in WORDS.items():
            if a != b:
                yield (
                    FORMS["en"].format(a, b),
                    FORMS["ru"].format(of_a[0], of_b[0]),
                    FORMS["zh"].format(of_a[1], of_b[1]),
                )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("transplant")
    rows = list(zip(*sentences(), strict=True))
    docs = {
        lang: table_artifact(
            root / f"docs-{lang}@0",
            DOCS,
            [{"doc_id": str(n), "lang": lang, "title": "", "text": text} for n, text in enumerate(texts)],
        )
        for lang, texts in zip(FORMS, rows, strict=True)
    }
    return Corpus.open({"main": {"docs": docs}})


@pytest.fixture(scope="module")
def student(corpus):
    return make(corpus)


@pytest.fixture(scope="module")
def english():
    return load_encoder("minilm", device="cpu")


def make(corpus, model="minilm", **how):
    base = Transplant(model=model, pieces=60, **how)
    return Dense(base=base, query_prefix="", doc_prefix="").build(corpus, seed=1)


def ids_of(tokenizer, word):
    return tokenizer(word, add_special_tokens=False)["input_ids"]


def rows_of(student):
    return student.model[0].model.get_input_embeddings().weight.detach().numpy()


def test_english_is_read_as_before(student, english):
    texts = [*dict.fromkeys(text for text, _, _ in sentences()), "The king's unbelievable music, 1984!"]
    for text in texts:
        assert ids_of(student.model.tokenizer, text) == ids_of(english.model.tokenizer, text)
    for ours, theirs in zip(student.encode_docs(texts), english.encode_docs(texts), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_word_is_one_piece_and_begins_as_the_mean_of_its_translations(corpus):
    """Against a naive mean of the best four; test_lexical has an oracle for the probabilities of IBM model 1."""
    student = make(corpus, steps=0)
    tokenizer, rows = student.model.tokenizer, rows_of(student)
    cells = find_cooccurrence([(ids_of(tokenizer, ru), ids_of(tokenizer, en)) for en, ru, _ in sentences()])
    weights = np.sqrt(np.prod(estimate_translations(cells, 5), axis=0))
    places = list(zip(cells.cell_one, cells.cell_other, weights, strict=True))
    for word, (russian, chinese) in WORDS.items():
        (own,) = ids_of(tokenizer, russian)
        its = {cells.other[other]: weight for one, other, weight in places if cells.one[one] == own}
        best = sorted(its, key=lambda piece, its=its: (-its[piece], piece))[:4]
        assert best[0] == ids_of(tokenizer, word)[0]
        share = np.array([its[piece] for piece in best])
        share /= share.sum()
        mean, length = share @ rows[best], share @ np.linalg.norm(rows[best], axis=1)
        np.testing.assert_allclose(rows[own], mean * length / np.linalg.norm(mean), rtol=1e-3, atol=1e-4)
        (first,), (_, inside) = ids_of(tokenizer, chinese), ids_of(tokenizer, "和" + chinese)
        np.testing.assert_array_equal(rows[first], rows[inside])  # at the beginning of a run and inside it


def test_rows_are_fitted_to_sentences_as_a_dense_solver_fits_them():
    generator = np.random.default_rng(0)
    known, new, ridge = 12, 9, 0.7
    start = generator.normal(size=(known + new, 5)).astype(np.float32)
    pairs = [
        Pair(generator.integers(0, known, 6), generator.integers(known - 3, known + new, generator.integers(1, 8)))
        for _ in range(40)
    ]
    is_new = np.arange(known + new) >= known
    fitted = start.copy()
    fit_rows(fitted, Sentences({"ru": pairs[:25], "zh": pairs[25:]}, is_new, np.arange(known + new)), 50, ridge)
    np.testing.assert_array_equal(fitted[:known], start[:known])

    matrix, target = np.zeros((len(pairs), new)), np.zeros((len(pairs), 5))
    for s, (left, right) in enumerate(pairs):
        np.add.at(matrix[s], right[right >= known] - known, 6**0.5 / len(right))
        target[s] = 6**0.5 * (start[left].mean(0) - start[right[right < known]].sum(0) / len(right))
    move = np.linalg.solve(matrix.T @ matrix + ridge * np.eye(new), matrix.T @ (target - matrix @ start[known:]))
    expected = start[known:] + move
    expected *= np.linalg.norm(start[known:], axis=1, keepdims=True) / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(fitted[known:], expected, rtol=1e-3, atol=1e-4)
    assert np.linalg.norm(move) > 0.5


def test_a_sentence_finds_its_translation_without_training(student):
    texts = [text for text, _, _ in sentences()]
    english = np.concatenate(student.encode_docs(texts))
    for other in (1, 2):
        found = np.concatenate(student.encode_queries([of_all[other] for of_all in sentences()])) @ english.T
        # the same two words in the other order are as good
        right = [set(texts[k].split()) == set(texts[n].split()) for n, k in enumerate(found.argmax(1))]
        assert np.mean(right) > 0.9


def test_a_saved_student_needs_sentence_transformers_alone(student, tmp_path):
    student.save(tmp_path / "student")
    assert "pipelines" not in (tmp_path / "student" / "modules.json").read_text()
    code = (
        "import sys, numpy as np; from sentence_transformers import SentenceTransformer\n"
        "model = SentenceTransformer(sys.argv[1], device='cpu')\n"
        "np.save(sys.argv[2], model.encode_document(['the king', 'король и хлеб', '国王和面包']))\n"
        "assert not any(name.partition('.')[0] == 'pipelines' for name in sys.modules)\n"
    )
    out = str(tmp_path / "vectors.npy")
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "student"), out], check=True, cwd=tmp_path)
    ours = np.concatenate(student.encode_docs(["the king", "король и хлеб", "国王和面包"]))
    np.testing.assert_allclose(np.load(out), ours, atol=1e-5)


def test_the_same_corpus_gives_the_same_student(student, corpus):
    again = make(corpus)
    assert again.model.tokenizer.get_vocab() == student.model.tokenizer.get_vocab()
    np.testing.assert_array_equal(rows_of(again), rows_of(student))


@pytest.mark.parametrize("more", [8, 1000])  # fewer and more than the pieces that are added
def test_rows_beyond_the_vocabulary_are_not_read(student, corpus, english, tmp_path, more):
    """Some checkpoints' matrices of vectors are padded to a round size."""
    padded = deepcopy(english.model[0])
    padded.model.resize_token_embeddings(len(padded.tokenizer) + more, mean_resizing=False)
    padded.model.save_pretrained(tmp_path)
    padded.tokenizer.save_pretrained(tmp_path)
    np.testing.assert_array_equal(rows_of(make(corpus, str(tmp_path))), rows_of(student))


def test_a_piece_that_would_cut_english_otherwise_is_not_added(english):
    pairs = {"de": [("winterly weather", "winterly wetter")] * 3}
    tokenizer = extend_tokenizer(english.model.tokenizer, "en", pairs, 50)
    assert ids_of(tokenizer, "winterly weather") == ids_of(english.model.tokenizer, "winterly weather")
    assert "winterly" not in tokenizer.get_vocab()
    assert "wetter" in tokenizer.get_vocab()


def test_what_it_cannot_be_built_from_is_told(corpus, tmp_path):
    with pytest.raises(StepError, match="documents in ru, zh: add 'en' to languages.docs"):
        make(Corpus(corpus.queries, {lang: corpus.docs[lang] for lang in ("ru", "zh")}))
    with pytest.raises(StepError, match="no document in 'en' has a translation"):
        make(Corpus(corpus.queries, {"en": corpus.docs["en"]}))
    other = load_encoder(resolve("minilm"), device="cpu").model.tokenizer
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    plain = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), unk_token=other.unk_token)
    with pytest.raises(RecipeError, match="this model's tokenizer is BPE: expected a model like BERT"):
        extend_tokenizer(plain, "en", {"de": [("a", "b")]}, 10)
