"""Opening a checkpoint, and telling late interaction from dense. Imports torch, and sentence-transformers where the
checkpoint needs it: for all but lexical students."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.devices import Device
from pipelines.models import resolve
from pipelines.precision import Precision
from pipelines.students.encoder import TextEncoder
from pipelines.students.files import find_file
from pipelines.students.lexical.model import MODEL_FILE, MODULE_TYPE, MODULES_FILE, LexicalModel

if TYPE_CHECKING:
    from pipelines.students.encoder import Model

OUR_MODULES = "pipelines.students."  # importing from here runs no code of the checkpoint's


def load(
    model: str, device: Device, precision: Precision = "fp32", batch_tokens: int | None = None, per_token: bool = False
) -> TextEncoder:
    """Open any encoder; see ``pipelines.students.load_encoder``."""
    where = resolve(model)
    multi_vector = per_token or _is_multi_vector(where)
    opened: Any = LexicalModel.load(where).to(device) if _is_lexical(where) else _open(where, device, per_token)
    return TextEncoder(opened.float().eval(), "maxsim" if multi_vector else "dot", precision, batch_tokens)


def _open(where: str, device: Device, per_token: bool) -> "Model":
    """Open a checkpoint with sentence-transformers."""
    from sentence_transformers import MultiVectorEncoder, SentenceTransformer

    if _is_multi_vector(where):
        return MultiVectorEncoder(where, device=device, trust_remote_code=_is_ours(where))
    if per_token:
        return MultiVectorEncoder(modules=_token_modules(where), device=device)
    return SentenceTransformer(where, device=device, trust_remote_code=_is_ours(where))


def _token_modules(where: str) -> list[Any]:
    """The modules that make unit vectors of the tokens of a checkpoint that has one vector per text: its transformer,
    without pooling and heads."""
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
    from sentence_transformers.sentence_transformer.modules import Normalize, Transformer

    return [Transformer(where), MultiVectorMask([]), Normalize("token_embeddings")]


def _is_lexical(where: str) -> bool:
    """Whether a directory holds a lexical student."""
    return Path(where).is_dir() and [m["type"] for m in _read_json(where, MODULES_FILE)] == [MODULE_TYPE]


def _is_multi_vector(where: str) -> bool:
    """Whether a checkpoint says that it has a vector per token: ours and the library's, PyLate's, Stanford's."""
    saved, plain = (_read_json(where, name) for name in (MODEL_FILE, "config.json"))
    kind = saved.get("model_type")
    return kind in ("MultiVectorEncoder", "ColBERT") or "HF_ColBERT" in (plain.get("architectures") or [])


def _is_ours(where: str) -> bool:
    """Whether all modules of a checkpoint are this package's own: only those are trusted with code."""
    modules = _read_json(where, MODULES_FILE) or []
    return bool(modules) and all(module["type"].startswith(OUR_MODULES) for module in modules)


def _read_json(where: str, name: str) -> Any:
    path = find_file(where, name)
    return json.loads(path.read_text(encoding="utf-8")) if path else {}
