"""The dense student: one unit vector per text, compared by dot product (cosine).

It is an ordinary sentence-transformers ``SentenceTransformer``: token encoder, pooling, L2 normalisation.
"""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from cluster.component import Component
from pipelines.students.base import Corpus
from pipelines.students.late_interaction import AnyBase, check_lengths

if TYPE_CHECKING:
    from pipelines.students.encoder import TextEncoder


class Dense(Component):
    """A bi-encoder with the prefixes of E5 (Wang et al. 2022). Lengths are in tokens.

    Cosines lie in [-1, 1], so the loss needs a ``temperature`` near 0.05 and an ``alpha`` that scales the teacher's
    scores to the same range.
    """

    kind: Literal["dense"] = "dense"
    base: AnyBase
    pooling: Literal["mean", "cls"] = "mean"
    query_prefix: str = "query: "
    doc_prefix: str = "passage: "
    query_length: int = Field(64, ge=4)
    doc_length: int = Field(220, ge=4)  # enough for a passage of 180 tokens with prefix, [CLS] and [SEP]

    @property
    def reads_corpus(self) -> bool:
        """Whether ``build`` reads the training texts."""
        return self.base.reads_corpus

    def build(self, corpus: Corpus, seed: int) -> "TextEncoder":
        """Build the untrained student, in float32 on the CPU. The same corpus and seed give the same weights.

        Raises:
            RecipeError: the base has fewer positions than a text may have tokens.
        """
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

        from pipelines.students.encoder import TextEncoder

        tokens: Any = self.base.build_module(corpus, seed)
        check_lengths(tokens.model, self.query_length, self.doc_length)
        tokens.query_length, tokens.document_length = self.query_length, self.doc_length
        modules = [tokens, Pooling(tokens.get_embedding_dimension(), self.pooling), Normalize()]
        prompts = {"query": self.query_prefix, "document": self.doc_prefix}
        return TextEncoder(SentenceTransformer(modules=modules, prompts=prompts, device="cpu"), "dot")
