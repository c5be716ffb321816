"""Opening a checkpoint, and telling late interaction from dense. Imports torch and sentence-transformers."""

import json
from pathlib import Path
from typing import Any

from sentence_transformers import MultiVectorEncoder, SentenceTransformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sentence_transformer.modules import Normalize, Transformer
from sentence_transformers.util import load_file_path

from pipelines.devices import Device
from pipelines.models import resolve
from pipelines.precision import Precision
from pipelines.students.encoder import TextEncoder

OUR_MODULES = "pipelines.students."  # importing from here runs no code of the checkpoint's


def load(
    model: str, device: Device, precision: Precision = "fp32", batch_tokens: int | None = None, per_token: bool = False
) -> TextEncoder:
    """Open any encoder; see ``pipelines.students.load_encoder``."""
    where = resolve(model)
    opened: MultiVectorEncoder | SentenceTransformer
    if _is_multi_vector(where):
        opened = MultiVectorEncoder(where, device=device, trust_remote_code=_is_ours(where))
    elif per_token:
        opened = MultiVectorEncoder(modules=_token_modules(where), device=device)
    else:
        opened = SentenceTransformer(where, device=device, trust_remote_code=_is_ours(where))
    return TextEncoder(opened.float().eval(), precision, batch_tokens)


def _token_modules(where: str) -> list[Any]:
    """The modules that make unit vectors of the tokens of a checkpoint that has one vector per text: its transformer,
    without pooling and heads."""
    return [Transformer(where), MultiVectorMask([]), Normalize("token_embeddings")]


def _is_multi_vector(where: str) -> bool:
    """Whether a checkpoint says that it has a vector per token: ours and the library's, PyLate's, Stanford's."""
    saved, plain = (_read_json(where, name) for name in ("config_sentence_transformers.json", "config.json"))
    kind = saved.get("model_type")
    return kind in ("MultiVectorEncoder", "ColBERT") or "HF_ColBERT" in (plain.get("architectures") or [])


def _is_ours(where: str) -> bool:
    """Whether all modules of a checkpoint are this package's own: only those are trusted with code."""
    modules = _read_json(where, "modules.json") or []
    return bool(modules) and all(module["type"].startswith(OUR_MODULES) for module in modules)


def _read_json(where: str, name: str) -> Any:
    path = load_file_path(where, name)
    return json.loads(Path(path).read_text(encoding="utf-8")) if path else {}
