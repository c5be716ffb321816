"""Adapters: a training that changes little of a student's base. Importing this loads no model library.

LoRA (Hu et al. 2021), through peft: beside the weights W of a linear layer, which stay as they are, the layer has two
small factors, and computes W x + (alpha / rank) · B A x. Only the factors are trained, and what stands outside the
base: the projection of a late-interaction student. A student is saved with the products added to W, as one without
adapter would be, and the factors beside it. Memory holds gradients and the optimiser's state of what is trained; a step
still goes through the whole base.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from cluster.component import Component
from cluster.errors import RecipeError

if TYPE_CHECKING:
    from torch import Tensor

    from pipelines.students.encoder import TextEncoder

NAME = "default"  # of the adapter, to peft


class Lora(Component):
    """A [rank, in] is drawn from the seed and B [out, rank] begins with zeros, so the first step is the base's own.

    ``targets`` are the ends of names of linear layers in the base, as ["query", "value"]; "all-linear" takes those of
    attention and feed-forward: all that stand in its numbered blocks. Embeddings are not trained, nor is the new one of
    a marker that the vocabulary lacked. ``dropout`` is applied to x before A. A learning rate of a whole model is
    mostly too small: 1e-4 and above are common.
    """

    kind: Literal["lora"] = "lora"
    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = "all-linear"

    def add_to(self, student: "TextEncoder", seed: int) -> "Adapter":
        """Add the factors to the base of ``student``, in place, and freeze the rest of it.

        Raises:
            RecipeError: peft is not installed, or a target names no linear layer; the message lists those of the base.
        """
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ModuleNotFoundError as error:
            raise RecipeError("train.adapter.kind = lora needs peft: pip install 'babelray[lora]'") from error
        import torch

        base: Any = student.model[0].model
        names = self._choose([name for name, part in base.named_modules() if isinstance(part, torch.nn.Linear)])
        config = LoraConfig(r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=names)
        torch.manual_seed(seed)
        inject_adapter_in_model(config, base, NAME)
        return Adapter(student, config)

    def _choose(self, linear: Sequence[str]) -> list[str]:
        """The names of the layers that get factors, of all linear ones."""
        if self.targets == "all-linear":
            if not (found := [name for name in linear if re.search(r"\.\d+\.", name)]):
                raise RecipeError(
                    "train.adapter.targets = all-linear: the base has no linear layers in numbered blocks; name those "
                    f"that get factors, of {', '.join(linear) or 'none'}"
                )
            return found
        for target in self.targets:
            if not any(_ends_in(name, target) for name in linear):
                kinds = dict.fromkeys(re.sub(r"\.\d+\.", ".N.", name) for name in linear)
                raise RecipeError(
                    f"train.adapter.targets: no linear layer of the base is named {target!r}; expected the end of one "
                    f"of {', '.join(kinds)}"
                )
        return [name for name in linear if any(_ends_in(name, target) for target in self.targets)]


class Adapter:
    """What was added to a student's base; ``config`` is peft's."""

    def __init__(self, student: "TextEncoder", config: Any):
        self.student, self._config = student, config

    def on(self, student: "TextEncoder") -> "Adapter":
        """The same adapter in a copy of its student."""
        return Adapter(student, self._config)

    @property
    def trained(self) -> "dict[str, Tensor]":
        """What is trained, by name: the factors, and the parameters outside the base."""
        return {name: p.detach() for name, p in self.student.model.named_parameters() if p.requires_grad}

    def restore(self, trained: "dict[str, Tensor]") -> None:
        """Take up what ``trained`` gave, by name."""
        for name, values in self.trained.items():
            values.copy_(trained[name])

    @contextmanager
    def merged(self) -> Iterator[None]:
        """In the block the base has plain layers that hold the sums. Afterwards it has those of before, to the bit:
        to add a product and take it away again would round."""
        import torch
        from peft.tuners.lora import LoraLayer

        base: Any = self.student.model[0].model
        layers: list[tuple[str, Any]] = [
            (name, layer) for name, layer in base.named_modules() if isinstance(layer, LoraLayer)
        ]
        for name, layer in layers:
            plain: Any = deepcopy(layer.base_layer)
            with torch.no_grad():
                plain.weight += layer.get_delta_weight(NAME)
            base.set_submodule(name, plain)
        try:
            yield
        finally:
            for name, layer in layers:
                base.set_submodule(name, layer)

    def save(self, directory: Path) -> None:
        """Write ``model``, the merged student, and ``adapter``, which ``PeftModel.from_pretrained`` opens on the base
        that training began with."""
        from peft import get_peft_model_state_dict
        from safetensors.torch import save_file

        with self.merged():
            self.student.save(directory / "model")
        config = deepcopy(self._config)
        config.inference_mode = True
        config.target_modules = sorted(config.target_modules)  # a set: else the file would differ from run to run
        config.save_pretrained(str(directory / "adapter"))
        factors = get_peft_model_state_dict(self.student.model[0].model, save_embedding_layers=False)
        named = {f"base_model.model.{name}": values.contiguous() for name, values in factors.items()}
        save_file(named, directory / "adapter" / "adapter_model.safetensors")


def _ends_in(name: str, target: str) -> bool:
    return name == target or name.endswith("." + target)
