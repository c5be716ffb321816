"""Bases with pretrained weights."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from cluster.errors import RecipeError
from pipelines.models import Pretrained, resolve
from pipelines.students.base import Corpus

if TYPE_CHECKING:
    from torch import nn


class PretrainedBase(Pretrained):
    """A base that begins with the transformer of a Hugging Face or sentence-transformers checkpoint.

    Attributes:
        layers: how many layers of the transformer are kept, the first ones; all of them where it is left out. A student
            of half of the layers takes half of the time, and its training has to make up for the others.
    """

    layers: int | None = Field(None, ge=1)

    def open_transformer(self) -> Any:
        """Load the transformer in float32, without its heads and pooling.

        Raises:
            RecipeError: it has fewer layers, or its configuration does not say how many.
        """
        from sentence_transformers.sentence_transformer.modules import Transformer
        from transformers import AutoConfig

        directory = resolve(self)
        if self.layers is None:
            return Transformer(directory).float()
        found = getattr(AutoConfig.from_pretrained(directory), "num_hidden_layers", None)
        if found is None or found < self.layers:
            raise RecipeError(
                f"train.student.base.layers = {self.layers}: expected at most the layers of the model, and "
                + (f"it has {found}" if found else "its config.json does not name num_hidden_layers")
            )
        return Transformer(directory, config_kwargs={"num_hidden_layers": self.layers}).float()


class Checkpoint(PretrainedBase):
    """The transformer of a checkpoint as it is."""

    reads_corpus: ClassVar[bool] = False
    kind: Literal["checkpoint"] = "checkpoint"

    def build_module(self, corpus: Corpus, seed: int) -> "nn.Module":
        """Load the module (see ``Base``). Uses neither the corpus nor the seed."""
        return self.open_transformer()
