"""More pieces for a WordPiece tokenizer: of the words of other languages, learnt by BPE from each language's sentences.

What is there stays: a text of the old language is cut as before, since a new piece that would cut a sentence of it
otherwise is not added. A run of Chinese characters is one word, which WordPiece cuts into the longest pieces that it
knows, as dictionaries have been used for segmentation; its pieces are learnt from words (jieba), and each is there both
at the beginning of a run and inside it. Japanese and Thai letters are parted from Chinese characters.

BPE, and not the library's trainer of WordPiece, which breaks ties at random; and with a letter that begins a word,
since BPE with a prefix inside words numbers its letters at random.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cluster.errors import RecipeError

Pairs = Mapping[str, Sequence[tuple[str, str]]]

INSIDE = "##"  # begins a piece that does not begin a word
BEGIN = "\u2581"  # while pieces are learnt, the letter that begins a word
HAN = (("\u3400", "\u4dbf"), ("\u4e00", "\u9fff"), ("\uf900", "\ufaff"))  # Chinese characters, first and last
# runs that are words of their own, in the notation of the tokenizers library
RUNS = r"[\p{Han}]+|[\p{Hiragana}]+|[\p{Katakana}\x{30FC}]+|[\p{Thai}]+|[\p{Lao}]+|[\p{Khmer}]+|[\p{Myanmar}]+"
LONGEST_WORD = 400  # characters; a longer one is unknown as a whole
FEWEST = 2  # occurrences of a pair of pieces that BPE joins
MOST_LETTERS = 2000  # of one language: characters that are pieces by themselves, the most frequent ones
ROUNDS = 5  # of taking out pieces that would cut the old language otherwise
WORDS_PER_TEXT = 4096


def extend_tokenizer(tokenizer: Any, left: str, pairs: Pairs, most: int) -> Any:
    """A tokenizer that has ``most`` more pieces at most, from the right sentences of ``pairs`` by language.

    Raises:
        RecipeError: the tokenizer has no WordPiece vocabulary.
    """
    description = _describe(tokenizer)
    known = description["model"]["vocab"]
    words = {lang: _count_words(description, (right for _, right in pairs[lang])) for lang in sorted(pairs)}
    quotas = _share_out(most, {lang: sum(counts.values()) for lang, counts in words.items()})
    learnt = {lang: _learn_pieces(words[lang], quotas[lang], known) for lang in words}
    lists = [learnt[lang] for lang in sorted(learnt)]
    new = list(dict.fromkeys(piece for pieces in lists for piece in pieces if piece not in known))
    sentences = list(dict.fromkeys(sentence for lang in sorted(pairs) for sentence, _ in pairs[lang]))
    old = _Words(_build(description, []))
    before = {word: old.cut(word) for word in _count_words(description, sentences)}
    for _ in range(ROUNDS):
        now = _Words(_build(description, new))
        added = set(new)
        cut_otherwise = {piece for word in before for piece in now.cut(word) if piece in added}
        if not cut_otherwise:
            break
        new = [piece for piece in new if piece not in cut_otherwise]
    return _wrap(_build(description, new), tokenizer)


def _describe(tokenizer: Any) -> dict[str, Any]:
    """The tokenizer's file, with Chinese characters that stay together."""
    description: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    kind = description["model"]["type"]
    if kind != "WordPiece" or description["model"]["continuing_subword_prefix"] != INSIDE:
        raise RecipeError(
            f"base.kind = transplant adds pieces to a WordPiece vocabulary, and this model's tokenizer is {kind}: "
            "expected a model like BERT or MiniLM; another one reads other languages as base.kind = checkpoint"
        )
    description |= {"truncation": None, "padding": None}
    description["normalizer"] |= {"handle_chinese_chars": False}
    run = {"type": "Split", "pattern": {"Regex": RUNS}, "behavior": "Isolated", "invert": False}
    description["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [description["pre_tokenizer"], run]}
    description["model"] |= {"max_input_chars_per_word": LONGEST_WORD}
    return description


def _build(description: Mapping[str, Any], new: Sequence[str]) -> Any:
    """The library's tokenizer with more pieces."""
    from tokenizers import Tokenizer

    vocabulary = dict(description["model"]["vocab"])
    vocabulary |= {piece: len(vocabulary) + at for at, piece in enumerate(new)}
    return Tokenizer.from_str(json.dumps({**description, "model": {**description["model"], "vocab": vocabulary}}))


def _wrap(built: Any, like: Any) -> Any:
    """A tokenizer of transformers, with the special tokens of another; as its own class it would be built anew."""
    from transformers import PreTrainedTokenizerFast

    names = ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
    special = {name: getattr(like, name) for name in names}
    return PreTrainedTokenizerFast(tokenizer_object=built, model_max_length=like.model_max_length, **special)


class _Words:
    """Cuts words that the tokenizer's normaliser and pre-tokenizer have made."""

    def __init__(self, built: Any):
        self._model = built.model

    def cut(self, word: str) -> list[str]:
        return [token.value for token in self._model.tokenize(word)]


def _count_words(description: Mapping[str, Any], sentences: Iterable[str]) -> Counter[str]:
    """The words of some sentences as the model of the tokenizer gets them."""
    built = _build(description, [])
    counts: Counter[str] = Counter()
    for sentence in sentences:
        words = built.pre_tokenizer.pre_tokenize_str(built.normalizer.normalize_str(sentence))
        counts.update(word for word, _ in words)
    return counts


def _share_out(most: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """How many pieces each language may add: in proportion to the square root of its number of words."""
    total = sum(math.sqrt(size) for size in sizes.values())
    return {lang: max(1, int(most * math.sqrt(size) / total)) for lang, size in sizes.items()}


def _learn_pieces(words: Counter[str], most: int, known: Mapping[str, int]) -> list[str]:
    """The pieces of a language's words that are not known, at most ``most`` and letters, the first joined first. A
    Chinese piece is counted once for its two forms."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(BEGIN)
    trainer = trainers.BpeTrainer(
        vocab_size=4 * most + MOST_LETTERS, min_frequency=FEWEST, limit_alphabet=MOST_LETTERS, show_progress=False
    )
    bpe.train_from_iterator(_repeat(_cut_chinese(words)), trainer)
    new: dict[str, None] = {}
    count = 0
    for piece, _ in sorted(
        bpe.get_vocab().items(), key=lambda pair: pair[1]
    ):  # letters, then pieces as they were joined
        bare = piece.removeprefix(BEGIN)
        form = bare if piece != bare else INSIDE + bare
        forms = [bare, INSIDE + bare] if is_chinese(bare) or len(bare) == 1 else [form]
        wanted = [form for form in forms if bare and form not in known and form not in new]
        count += bool(wanted) and len(bare) > 1
        if count > most:
            break
        new |= dict.fromkeys(wanted)
    return list(new)


def _cut_chinese(words: Counter[str]) -> Counter[str]:
    """The same words, with runs of Chinese characters cut into the words of a dictionary."""
    if not any(map(is_chinese, words)):
        return words
    from pipelines.tokenize import load_analyser

    cut = load_analyser("zh")
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for part in cut(word) if is_chinese(word) else [word]:
            counts[part] += count
    return counts


def is_chinese(word: str) -> bool:
    """Whether all of a word are Chinese characters, and there is one."""
    return bool(word) and all(any(first <= letter <= last for first, last in HAN) for letter in word)


def _repeat(words: Counter[str]) -> Iterator[str]:
    """Texts that hold each word as often as it was counted, in alphabetical order."""
    held: list[str] = []
    for word in sorted(words):
        for _ in range(words[word]):
            held.append(word)
            if len(held) == WORDS_PER_TEXT:
                yield " ".join(held)
                held = []
    yield " ".join(held)
