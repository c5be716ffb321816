"""A base with pretrained weights."""

from typing import TYPE_CHECKING, Literal

from cluster.component import Component
from pipelines.models import resolve
from pipelines.students.base import Corpus

if TYPE_CHECKING:
    from torch import nn


class Checkpoint(Component):
    """The transformer of a Hugging Face or sentence-transformers checkpoint, without its heads and pooling.

    ``model`` is a Hugging Face id, a directory, an ``s3://`` directory, or ``minilm``; ``revision`` pins the first.
    """

    kind: Literal["checkpoint"] = "checkpoint"
    model: str
    revision: str | None = None

    def build_module(self, corpus: Corpus, seed: int) -> "nn.Module":
        """Load the module (see ``Base``). Uses neither the corpus nor the seed."""
        from sentence_transformers.sentence_transformer.modules import Transformer

        pinned = {"revision": self.revision} if self.revision else {}
        options = {f"{what}_kwargs": dict(pinned) for what in ("model", "processor", "config")}
        return Transformer(resolve(self.model), **options).float()
