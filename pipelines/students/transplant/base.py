"""The base *transplant*: an encoder of one language that is given the words of others.

The transformer stays as it is, and so does every vector of its vocabulary. Each other language of the corpus adds
pieces of its words (see ``vocabulary``), whose vectors are found from those of the pieces of their translations (see
``rows``). Nothing is trained: what comes out reads the other languages word by word, and training makes more of it.

Costs about 0.7 ms per sentence pair, most of it cutting, aligning and fitting, and 3 GB of memory for 200,000 pairs.
"""

import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from cluster.errors import StepError
from pipelines.students.base import Corpus
from pipelines.students.checkpoint import PretrainedBase

if TYPE_CHECKING:
    from torch import nn

Pairs = dict[str, list[tuple[str, str]]]


class Transplant(PretrainedBase):
    """An encoder ``model`` with a WordPiece vocabulary, as BERT and MiniLM have, which reads the language ``left``.

    Attributes:
        pieces: how many are added, of all languages together, beside single letters; a row of 384 numbers is 1.5 KB.
        max_pairs: aligned sentence pairs of a language at most.
        iterations: of EM, which aligns the new pieces with those of ``left``.
        neighbours: pieces of ``left`` whose mean a new vector is at first: those that translate it best.
        steps: of the fit of all new vectors to whole sentences; 0 leaves them as they are at first.
        ridge: how strongly the fit holds a vector where it was, in sentences of one piece.
    """

    version: ClassVar[int] = 2  # words are aligned by IBM model 1, and their vectors fitted to sentences
    reads_corpus: ClassVar[bool] = True
    kind: Literal["transplant"] = "transplant"
    left: str = "en"
    pieces: int = Field(30_000, ge=1)
    max_pairs: int = Field(60_000, ge=1)
    iterations: int = Field(5, ge=1)
    neighbours: int = Field(4, ge=1)
    steps: int = Field(40, ge=0)
    ridge: float = Field(1.0, gt=0)

    def build_module(self, corpus: Corpus, seed: int) -> "nn.Module":
        """Build the module (see ``Base``).

        Raises:
            StepError: the corpus has no documents in ``left``, or no translations of them.
            RecipeError: the model's tokenizer has no WordPiece vocabulary.
        """
        import torch
        from sentence_transformers.sentence_transformer.modules import Transformer

        from pipelines.students.transplant.rows import Alignment, find_rows
        from pipelines.students.transplant.vocabulary import extend_tokenizer

        module: Any = self.open_transformer()
        pairs, pieces = self._collect_pairs(corpus, seed), len(module.tokenizer)
        tokenizer = extend_tokenizer(module.tokenizer, self.left, pairs, self.pieces)
        known = module.model.get_input_embeddings().weight.detach()[:pieces]  # some matrices are padded beyond them
        how = Alignment(self.iterations, self.neighbours, self.steps, self.ridge)
        found = find_rows(tokenizer, pairs, known.numpy(), how)
        module.model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        with torch.no_grad():
            module.model.get_input_embeddings().weight.copy_(torch.from_numpy(found))
        with tempfile.TemporaryDirectory() as directory:
            module.model.save_pretrained(directory)
            tokenizer.save_pretrained(directory)
            return Transformer(directory)

    def _collect_pairs(self, corpus: Corpus, seed: int) -> Pairs:
        """Aligned sentences (left, other) by the other language."""
        from pipelines.students.lexical.align import draw_sentence_pairs

        if self.left not in corpus.docs:
            raise StepError(
                f"base.kind = transplant learns words from translations of documents in {self.left!r}, and the "
                f"training data have documents in {', '.join(sorted(corpus.docs)) or 'no language'}: add {self.left!r} "
                "to languages.docs, or set train.student.base.left"
            )

        def draw(lang: str) -> Iterator[tuple[str, str]]:
            return draw_sentence_pairs(corpus.docs[self.left], corpus.docs[lang], self.max_pairs, seed)

        pairs = {lang: list(draw(lang)) for lang in sorted(corpus.docs) if lang != self.left}
        found = {lang: of_lang for lang, of_lang in pairs.items() if of_lang}
        if not found:
            raise StepError(
                f"base.kind = transplant: no document in {self.left!r} has a translation: expected documents of the "
                "same id in another language. Add languages to languages.docs, or a source of translations"
            )
        return found
