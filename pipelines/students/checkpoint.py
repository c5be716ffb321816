"""A base with pretrained weights."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pipelines.models import Pretrained, resolve
from pipelines.students.base import Corpus

if TYPE_CHECKING:
    from torch import nn


class Checkpoint(Pretrained):
    """The transformer of a Hugging Face or sentence-transformers checkpoint, without its heads and pooling."""

    reads_corpus: ClassVar[bool] = False
    kind: Literal["checkpoint"] = "checkpoint"

    def build_module(self, corpus: Corpus, seed: int) -> "nn.Module":
        """Load the module (see ``Base``). Uses neither the corpus nor the seed."""
        from sentence_transformers.sentence_transformer.modules import Transformer

        return Transformer(resolve(self)).float()
