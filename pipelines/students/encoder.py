"""The encoder at work: a sentence-transformers model, batched by length, for inference and for training.

Texts are tokenised once into rows without padding; rows of similar length go through the model together, as many as a
token budget allows. Imports torch: load it where a model is wanted, through ``pipelines.students.load_encoder``.

Tensor names end in their shape: B rows, T tokens, D dimensions.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import MultiVectorEncoder, SentenceTransformer
from sentence_transformers.util import load_file_path
from torch import Tensor
from torch.nn.functional import normalize

from pipelines.models import resolve
from pipelines.students.base import Similarity, Task

TEXTS_PER_CHUNK = 8192  # tokenised and sorted together
TEXTS_PER_CALL = 256  # of the tokenizer, which pads them for each other
TOKENS_PER_BATCH = {"cpu": 8_192, "cuda": 131_072}  # beyond these a batch is no faster
OUR_MODULES = "pipelines.students."  # importing from here runs no code of the checkpoint's
DOC_PROMPTS = ("document", "passage", "corpus")  # the names sentence-transformers looks for, in its order

# the features of one text: tensors [T] or [T, …], and what is the same for every text of a task (a prompt's length)
Row = dict[str, Any]


class TextEncoder:
    """An encoder (see ``pipelines.students.base.Encoder``) that can also be trained: ``rows`` and ``embed`` are the two
    halves of encoding, with gradients. ``model`` is the sentence-transformers model."""

    similarity: Similarity

    def __init__(self, model: MultiVectorEncoder | SentenceTransformer):
        self.model = model
        self.similarity = "maxsim" if isinstance(model, MultiVectorEncoder) else "dot"
        self.dim = int(model.get_embedding_dimension() or 0)
        # a model that compares by cosine without normalising is normalised here, so that dot products are cosines
        self._normalize = self.similarity == "dot" and model.similarity_fn_name == "cosine"

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def encode_queries(self, texts: Sequence[str]) -> list[np.ndarray]:
        """See ``Encoder``."""
        return self._encode(texts, "query")

    def encode_docs(self, texts: Sequence[str]) -> list[np.ndarray]:
        """See ``Encoder``."""
        return self._encode(texts, "document")

    def windows(self, text: str, length: int = 180, stride: int = 90) -> list[str]:
        """See ``Encoder``. ``length`` is cut to what the encoder reads, less its marker and special tokens."""
        if not 0 < stride <= length:
            raise ValueError(f"expected 0 < stride <= length, got stride {stride} and length {length}")
        length = min(length, self._room())
        if len(text.encode()) <= length:  # no tokenizer makes more tokens than there are bytes
            return [text]
        spans = self._spans(text)
        starts = [0]
        while starts[-1] + length < len(spans):
            starts.append(starts[-1] + min(stride, length))
        if len(starts) == 1:
            return [text]
        return [text[spans[s][0] : spans[min(s + length, len(spans)) - 1][1]] for s in starts]

    def rows(self, texts: Sequence[str], task: Task) -> list[Row]:
        """Tokenise: the features of each text, without padding."""
        prompt = self._prompt(task)
        made: list[Row] = []
        for start in range(0, len(texts), TEXTS_PER_CALL):
            features = self.model.preprocess(list(texts[start : start + TEXTS_PER_CALL]), prompt=prompt, task=task)
            made += _split(features)
        return made

    def embed(self, rows: Sequence[Row], task: Task) -> tuple[Tensor, Tensor]:
        """Vectors float [B, T, D] and which of them count, bool [B, T]; T is 1 for a dense encoder. Gradients flow."""
        features = self._pad(rows)
        features = {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in features.items()}
        out = self.model(features, task=task)
        if self.similarity == "maxsim":
            return out["token_embeddings"], out["attention_mask"].bool()
        vectors_BD = out["sentence_embedding"]
        if self._normalize:
            vectors_BD = normalize(vectors_BD, dim=-1)
        return vectors_BD[:, None], torch.ones(len(rows), 1, dtype=torch.bool, device=vectors_BD.device)

    def save(self, directory: Path) -> None:
        """Write an ordinary sentence-transformers directory."""
        self.model.save(str(directory), create_model_card=False)

    def _encode(self, texts: Sequence[str], task: Task) -> list[np.ndarray]:
        self.model.eval()
        encoded: list[np.ndarray] = []
        for start in range(0, len(texts), TEXTS_PER_CHUNK):
            rows = self.rows(texts[start : start + TEXTS_PER_CHUNK], task)
            found: list[np.ndarray] = [np.empty(0)] * len(rows)
            for batch in by_length(rows, TOKENS_PER_BATCH[self.device.type]):
                with torch.inference_mode(), half_precision(self.device):
                    vectors_BTD, mask_BT = self.embed([rows[i] for i in batch], task)
                vectors, mask = vectors_BTD.float().cpu().numpy(), mask_BT.cpu().numpy()
                for i, v, m in zip(batch, vectors, mask, strict=True):
                    found[i] = v[m] if m.any() else np.zeros((1, self.dim), np.float32)  # nothing that can match
            encoded += found
        return encoded

    def _prompt(self, task: Task) -> str | None:
        names = ("query",) if task == "query" else DOC_PROMPTS
        return next((self.model.prompts[name] for name in names if self.model.prompts.get(name)), None)

    def _pad(self, rows: Sequence[Row]) -> dict[str, Any]:
        pad = getattr(self.model.tokenizer, "pad_token_id", None) or 0
        sequence = torch.nn.utils.rnn.pad_sequence
        return {
            name: sequence([row[name] for row in rows], batch_first=True, padding_value=pad * (name == "input_ids"))
            if isinstance(value, Tensor)
            else value
            for name, value in rows[0].items()
        }

    def _room(self) -> int:
        """How many tokens of a text fit beside the marker and the special tokens."""
        longest = getattr(self.model[0], "document_length", None) or self.model.max_seq_length or 512
        return max(1, longest - len(self.rows([""], "document")[0]["input_ids"]))

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """Where each token begins and ends in the text."""
        tokenizer = self.model.tokenizer
        if not getattr(tokenizer, "is_fast", False):
            raise ValueError(
                f"windows need a tokenizer that knows where tokens stand in the text, got {type(tokenizer).__name__}: "
                "use a checkpoint with a tokenizer.json"
            )
        encoded = tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False
        )
        return [span for span in encoded["offset_mapping"] if span[1] > span[0]]


def load(model: str, device: str | None = None) -> TextEncoder:
    """Open any encoder; see ``pipelines.students.load_encoder``."""
    where = resolve(model)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    kind = MultiVectorEncoder if _is_multi_vector(where) else SentenceTransformer
    opened = kind(where, device=device, trust_remote_code=_is_ours(where))
    return TextEncoder(opened.float().eval())


def _is_multi_vector(where: str) -> bool:
    """Whether a checkpoint says that it has a vector per token: ours and the library's, PyLate's, Stanford's."""
    saved, plain = (_read_json(where, name) for name in ("config_sentence_transformers.json", "config.json"))
    kind = saved.get("model_type")
    return kind in ("MultiVectorEncoder", "ColBERT") or "HF_ColBERT" in (plain.get("architectures") or [])


def _is_ours(where: str) -> bool:
    """Whether all modules of a checkpoint are this package's own, which the library wants to be told to trust."""
    modules = _read_json(where, "modules.json") or []
    return bool(modules) and all(module["type"].startswith(OUR_MODULES) for module in modules)


def _read_json(where: str, name: str) -> Any:
    path = load_file_path(where, name)
    return json.loads(Path(path).read_text(encoding="utf-8")) if path else {}


def _split(features: dict[str, Any]) -> list[Row]:
    """Cut a padded batch into rows."""
    mask = features["attention_mask"]
    keep = mask.bool()
    if "query_expansion_positions" in features:
        keep = keep | features["query_expansion_positions"].bool()
    return [{k: v[i][keep[i]] if isinstance(v, Tensor) else v for k, v in features.items()} for i in range(len(mask))]


def by_length(rows: Sequence[Row], tokens: int) -> Iterator[list[int]]:
    """Indices of rows in batches of similar length, longest first, of at most ``tokens`` tokens with their padding."""
    lengths = np.array([len(row["input_ids"]) for row in rows])
    batch: list[int] = []
    for index in np.argsort(-lengths, kind="stable").tolist():
        if batch and lengths[batch[0]] * (len(batch) + 1) > tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def half_precision(device: torch.device, precision: str = "auto") -> Any:
    """Autocast for ``precision``, as ``precision_on`` understands it."""
    precision = precision_on(device, precision)
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16 if precision == "bf16" else torch.float16)


def precision_on(device: torch.device, precision: str = "auto") -> str:
    """What "auto" is on a device: float32 on a CPU, else the half precision that the accelerator computes with."""
    if precision != "auto":
        return precision
    return "fp32" if device.type == "cpu" else native_half(*torch.cuda.get_device_capability(device))


def native_half(major: int, minor: int) -> str:
    """The half precision of a GPU of this compute capability. bf16 came with 8.0; torch.cuda.is_bf16_supported() says
    yes to a V100 (7.0) and a T4 (7.5) as well, which emulate it slowly."""
    return "bf16" if (major, minor) >= (8, 0) else "fp16"
