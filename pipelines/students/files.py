"""Finding the files of a checkpoint, without a library where it is a directory."""

from pathlib import Path
from typing import Any


def find_file(model: str, name: str, subfolder: str = "", **where: Any) -> Path | None:
    """The file ``name`` of a checkpoint in a directory, or on the Hugging Face hub, which sentence-transformers asks;
    None where there is none. ``where`` are the library's options (``token``, ``cache_folder``, ``revision``,
    ``local_files_only``)."""
    if Path(model).is_dir():
        path = Path(model, subfolder, name)
        return path if path.is_file() else None
    from sentence_transformers.util import load_file_path

    found = load_file_path(model, name, subfolder=subfolder, **where)
    return Path(found) if found else None
