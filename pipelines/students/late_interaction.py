"""The late-interaction student: one unit vector per token, compared by MaxSim (ColBERT; ColBERT-X across languages).

It is an ordinary sentence-transformers ``MultiVectorEncoder``: token encoder, bias-free projection, scoring mask, L2
normalisation. A saved student can be loaded with that library alone.
"""

import string
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from cluster.component import Component
from cluster.errors import RecipeError
from pipelines.students.base import Corpus
from pipelines.students.checkpoint import Checkpoint
from pipelines.students.scratch import Scratch
from pipelines.students.transplant import Transplant

if TYPE_CHECKING:
    from pipelines.students.encoder import TextEncoder

AnyBase = Annotated[Checkpoint | Scratch | Transplant, Field(discriminator="kind")]


class LateInteraction(Component):
    """A ColBERT model with the defaults of ColBERT-X (``artifact.metadata`` of the MTD checkpoints).

    They are 128 dimensions, queries of 32 tokens padded with [MASK] that is not attended to, documents of 220 tokens,
    a marker token for queries and one for documents, and no vectors for punctuation in documents. A marker that the
    vocabulary lacks is added to it. Lengths count [CLS], marker and [SEP], so a passage of 180 tokens, the length that
    documents are split into for encoding, is read whole.
    """

    kind: Literal["late_interaction"] = "late_interaction"
    base: AnyBase
    dim: int = Field(128, ge=1)
    query_length: int = Field(32, ge=4)
    doc_length: int = Field(220, ge=4)
    expansion: bool = True  # pad queries with [MASK] up to query_length
    attend_to_expansion: bool = False
    query_marker: str = "[unused0]"  # "" for none
    doc_marker: str = "[unused1]"
    skip_punctuation: bool = True

    @property
    def reads_corpus(self) -> bool:
        """Whether ``build`` reads the training texts."""
        return self.base.reads_corpus

    def build(self, corpus: Corpus, seed: int) -> "TextEncoder":
        """Build the untrained student, in float32 on the CPU. The same corpus and seed give the same weights.

        Raises:
            RecipeError: the base has fewer positions than a text may have tokens.
        """
        import torch
        from sentence_transformers import MultiVectorEncoder
        from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
        from sentence_transformers.sentence_transformer.modules import Dense, Normalize

        from pipelines.students.encoder import TextEncoder

        tokens: Any = self.base.build_module(corpus, seed)
        check_lengths(tokens.model, self.query_length, self.doc_length)
        _add_markers(tokens, [m for m in (self.query_marker, self.doc_marker) if m], seed)
        tokens.query_length, tokens.document_length = self.query_length, self.doc_length
        if self.expansion:
            tokens.query_expansion = {
                "strategy": "fixed",
                "length": self.query_length,
                "attend": self.attend_to_expansion,
            }
        torch.manual_seed(seed)
        projection = Dense(
            tokens.get_embedding_dimension(),
            self.dim,
            bias=False,
            activation_function=None,
            module_input_name="token_embeddings",
        )
        mask = MultiVectorMask(_list_punctuation(tokens.tokenizer.get_vocab()) if self.skip_punctuation else [])
        prompts = {"query": _format_prefix(self.query_marker), "document": _format_prefix(self.doc_marker)}
        modules = [tokens, projection, mask, Normalize("token_embeddings")]
        return TextEncoder(MultiVectorEncoder(modules=modules, prompts=prompts, device="cpu"), "maxsim")


def check_lengths(model: Any, query_length: int, doc_length: int) -> None:
    """Check that a transformer has an embedding for every position of a text.

    A model whose positions are computed (rotary, relative) has no such limit.

    Raises:
        RecipeError: a length exceeds the number of positions.
    """
    from torch import nn

    tables = [getattr(module, "position_embeddings", None) for module in model.modules()]
    for table in (t for t in tables if isinstance(t, nn.Embedding)):
        before = (
            0 if table.padding_idx is None else table.padding_idx + 1
        )  # RoBERTa's positions start behind its padding index
        longest = table.num_embeddings - before
        if max(query_length, doc_length) > longest:
            raise RecipeError(
                f"train.student: query_length = {query_length} and doc_length = {doc_length}, but the base has "
                f"positions for {longest} tokens: lower the lengths, or take a base with more positions"
            )


def _list_punctuation(vocabulary: Mapping[str, int]) -> list[str]:
    """List the tokens that are one punctuation mark: alone, or behind the space sign of SentencePiece (▁) or of
    byte-level BPE (Ġ)."""
    return [piece for mark in string.punctuation for piece in (mark, "▁" + mark, "Ġ" + mark) if piece in vocabulary]


def _format_prefix(marker: str) -> str:
    return f"{marker} " if marker else ""


def _add_markers(tokens: Any, markers: list[str], seed: int) -> None:
    """Add the markers that are not one token yet to the vocabulary, each with a new embedding drawn from the seed."""
    import torch
    from transformers import AddedToken

    new = [m for m in markers if tokens.tokenizer.tokenize(m) != [m]]
    if not new:
        return
    # added to the special tokens, not in their place: a checkpoint may have its own
    tokens.tokenizer.add_tokens([AddedToken(m, normalized=False, special=True) for m in new], special_tokens=True)
    if len(tokens.tokenizer) > tokens.model.get_input_embeddings().num_embeddings:
        torch.manual_seed(seed)
        tokens.model.resize_token_embeddings(len(tokens.tokenizer), mean_resizing=False)
