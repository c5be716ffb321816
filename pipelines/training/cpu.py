"""What makes a transformer's training fast on a CPU: attention in plain products, and dropout from cheap random bits.

With dropout, torch's fused attention takes its slow path on a CPU, and a random number of dropout cost 7 ns on an AMD
EPYC, more than all else that is done to an attention weight. Here four are cut from one draw of 64 bits, at 1.4 ns
each. Results are those of transformers' "eager" attention; the probability of dropping is right to 1 / 65,536. Random
numbers come from torch's generator, so that a seed decides them. Measured with
``tests/benchmarks/bench_training.py``.

Tensor names end in their shape: B texts, H heads, T tokens, D dimensions of a head.
"""

import ctypes
import sys
from typing import Any

import torch
from torch import Tensor, nn

NAME = "cpu_training"  # of the attention, in transformers' registry
MODELS = frozenset({"bert", "roberta", "xlm-roberta"})  # whose attention has as many heads of keys as of queries
LEVELS = 1 << 16
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
LARGEST = 2**31 - 1


def speed_up(model: nn.Module) -> None:
    """Replace attention and dropout of the transformers in ``model`` that are known, in place. Saved files stay as they
    would be."""
    if "transformers" not in sys.modules:  # then no part of the model is of that library, whose import takes seconds
        return
    from transformers import AttentionInterface, PreTrainedModel
    from transformers.masking_utils import AttentionMaskInterface, eager_mask

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, eager_mask)
    for part in model.modules():
        if isinstance(part, PreTrainedModel) and part.config.model_type in MODELS:
            part.set_attn_implementation(NAME)
            for owner in part.modules():
                for name, child in owner.named_children():
                    if type(child) is nn.Dropout:
                        setattr(owner, name, Dropout(child.p).train(child.training))


def keep_freed_memory() -> None:
    """Have this process keep the memory of freed tensors for the next ones, where the C library is glibc.

    Else the pages of every large tensor are given back to the system and cleared anew: 4 to 8 % of a step's time.
    """
    if sys.platform == "linux" and (set_option := getattr(ctypes.CDLL(None), "mallopt", None)):
        set_option(M_MMAP_THRESHOLD, LARGEST)
        set_option(M_TRIM_THRESHOLD, LARGEST)


def return_freed_memory() -> None:
    """Give the memory of freed tensors back to the system, where the C library is glibc.

    Passes of many shapes leave holes that the next ones do not fill: a training on texts of 5 to 220 tokens held 6.7 GB
    after 26 steps and 12.2 GB after 560. Costs about 0.2 s, and as much again when memory is taken anew.
    """
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


class Dropout(nn.Module):
    """``torch.nn.Dropout`` with other random numbers."""

    def __init__(self, probability: float):
        super().__init__()
        self.p = probability

    def forward(self, values: Tensor) -> Tensor:
        """Drop values in training."""
        return drop(values, self.p) if self.training and self.p else values


def drop(values: Tensor, probability: float) -> Tensor:
    """Set each value to zero with this probability, and divide the others by the probability of being kept."""
    count = values.numel()
    draws = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    bits = draws.view(torch.int16)[:count].view(values.shape)
    kept = bits >= round(probability * LEVELS) - LEVELS // 2
    return values * kept.to(values.dtype).mul_(1 / (1 - probability))


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Attention of [B, H, T, D] queries, keys and values under a mask that is added; returns [B, T, H, D] and the
    weights [B, H, T, T]. The form is that of ``transformers.AttentionInterface``."""
    scores_BHTT = torch.matmul(query * (query.shape[-1] ** -0.5 if scaling is None else scaling), key.transpose(2, 3))
    if attention_mask is not None:
        scores_BHTT = scores_BHTT + attention_mask
    weights_BHTT = scores_BHTT.softmax(-1)
    if module.training and dropout:
        weights_BHTT = drop(weights_BHTT, dropout)
    return torch.matmul(weights_BHTT, value).transpose(1, 2).contiguous(), weights_BHTT
