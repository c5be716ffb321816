"""A student that begins from weights trained elsewhere."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pipelines.models import Pretrained, resolve
from pipelines.students.base import Corpus

if TYPE_CHECKING:
    from torch import nn


class Checkpoint(Pretrained):
    """The transformer of a Hugging Face or sentence-transformers checkpoint, without its heads and pooling."""

    reads_corpus: ClassVar[bool] = False
    kind: Literal["checkpoint"] = "checkpoint"

    def module(self, corpus: Corpus, seed: int) -> "nn.Module":
        """See ``Base``. Reads nothing of the corpus."""
        from sentence_transformers.sentence_transformer.modules import Transformer

        return Transformer(resolve(self)).float()
