"""Which device this process computes on. Everything that loads a model names it; nothing chooses for itself."""

import os
from typing import Literal

Device = Literal["cpu", "cuda"]
NO_DEVICES = ("", "-1", "NoDevFiles")  # values of CUDA_VISIBLE_DEVICES that hide every GPU


def device() -> Device:
    """The device that this process may use: a GPU where one is visible, else the CPU.

    A step that asked for no GPU runs with all of them hidden (``CUDA_VISIBLE_DEVICES`` is empty).
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES") in NO_DEVICES:
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
