"""How many parameters of a model compute, for each token that it reads and for each that it writes.

Tables of embeddings are looked up and compute nothing, so they are left out; the layer over the vocabulary counts for
written tokens. Of a model that is here the shapes are read from its safetensors file; of another the numbers follow
from its published dimensions; of one that is not known here, from its name ("13b", "600M").
"""

import json
import re
import struct
from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path

from cluster.errors import BabelrayError
from pipelines.models import Pretrained, resolve


@dataclass(frozen=True)
class Parameters:
    """``reads`` and ``writes`` compute for each token read and written, ``total`` are stored. ``dim`` is the width of
    its vectors. ``origin`` says where the numbers come from."""

    reads: float
    writes: float
    total: float
    dim: int
    origin: str


def _encoder(layers: int, width: int, inner: int, total: float, name: str) -> Parameters:
    """An encoder: four square matrices of attention and two of the inner layer, for each layer."""
    reads = layers * (4 * width**2 + 2 * width * inner)
    return Parameters(reads, reads, total, width, f"dimensions of {name}")


def _translator(layers: int, width: int, inner: int, vocabulary: int, total: float, name: str) -> Parameters:
    """An encoder and a decoder of so many layers each; the decoder attends twice, and scores the vocabulary."""
    reads = layers * (4 * width**2 + 2 * width * inner)
    writes = layers * (8 * width**2 + 2 * width * inner) + width * vocabulary
    return Parameters(reads, writes, total, width, f"dimensions of {name}")


PUBLISHED = {
    "xlm-roberta-large": _encoder(24, 1024, 4096, 560e6, "xlm-roberta-large"),
    "xlm-roberta-base": _encoder(12, 768, 3072, 278e6, "xlm-roberta-base"),
    "multilingual-e5-base": _encoder(12, 768, 3072, 278e6, "multilingual-e5-base"),
    "bge-m3": _encoder(24, 1024, 4096, 568e6, "BGE-M3"),
    "bge-reranker-v2-m3": _encoder(24, 1024, 4096, 568e6, "bge-reranker-v2-m3"),
    "colbertv2.0": _encoder(12, 768, 3072, 110e6, "colbertv2.0"),
    "all-minilm-l6-v2": _encoder(6, 384, 1536, 22.7e6, "all-MiniLM-L6-v2"),
    "minilm": _encoder(6, 384, 1536, 22.7e6, "all-MiniLM-L6-v2"),
    "nllb-200-distilled-600m": _translator(12, 1024, 4096, 256206, 615e6, "NLLB-200 600M"),
    "nllb-200-distilled-1.3b": _translator(24, 1024, 8192, 256206, 1.37e9, "NLLB-200 1.3B"),
    "nllb-200-1.3b": _translator(24, 1024, 8192, 256206, 1.37e9, "NLLB-200 1.3B"),
    "nllb-200-3.3b": _translator(24, 2048, 8192, 256206, 3.3e9, "NLLB-200 3.3B"),
    "m2m100_418m": _translator(12, 1024, 4096, 128112, 484e6, "M2M100 418M"),
}
SIZE = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", re.IGNORECASE)
EMBEDDINGS = ("embed", "shared.weight", "wte", "wpe")


def find_parameters(model: Pretrained | str) -> Parameters | None:
    """The parameters of a model, by its files, its name, or what its name says; None where nothing is known."""
    reference = Pretrained(model=model) if isinstance(model, str) else model
    if reference.recipe or not reference.model:
        return None
    name = reference.model.rstrip("/").rpartition("/")[2].lower()
    return _of_files(reference) or PUBLISHED.get(name) or _of_name(name)


def _of_name(name: str) -> Parameters | None:
    """What a name says: of ``mt5-13b-mmarco`` 13 billion, all of which are taken to compute."""
    found = SIZE.search(name)
    if not found:
        return None
    total = float(found[1]) * {"b": 1e9, "m": 1e6}[found[2].lower()]
    return Parameters(total, total, total, 1024, f"the name {name}")


def _of_files(reference: Pretrained) -> Parameters | None:
    """By the shapes in the safetensors files of a model that is on this machine; downloads nothing."""
    if reference.content.startswith("absent") or not reference.content:
        return None
    if reference.content.startswith("hub:") or "://" in reference.model:
        return None  # not looked for: a plan must not download
    try:
        directory = Path(resolve(reference))
    except BabelrayError:
        return None
    shapes = [shape for file in sorted(directory.glob("*.safetensors")) for shape in _read_shapes(file)]
    return count(shapes, f"the files of {reference.model}") if shapes else None


def count(shapes: list[tuple[str, list[int]]], origin: str) -> Parameters:
    """Sum up matrices by what they do: a decoder's are for written tokens where there is an encoder too."""
    total = reads = writes = vocabulary = 0.0
    widths: Counter[int] = Counter()
    has_encoder = any("encoder." in name.replace("decoder.", "") for name, _ in shapes)
    for name, shape in shapes:
        size = float(prod(shape))
        total += size
        if len(shape) < 2:
            widths.update(shape)
        elif "lm_head" in name:
            vocabulary = size
        elif any(word in name for word in EMBEDDINGS):
            vocabulary = max(vocabulary, size)
        elif has_encoder and "decoder." in name:
            writes += size
        else:
            reads += size
    width = widths.most_common(1)[0][0] if widths else 0
    return Parameters(reads, (writes or reads) + vocabulary, total, width, origin)


def _read_shapes(file: Path) -> list[tuple[str, list[int]]]:
    """Names and shapes of the tensors of a safetensors file: its header alone."""
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        header = json.loads(opened.read(length))
    return [(name, entry["shape"]) for name, entry in header.items() if name != "__metadata__"]
