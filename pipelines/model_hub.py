"""What the Hugging Face hub says of a model: the commit that a revision means, or why that is not known.

The local cache is asked first, then the hub; each question to a hub that cannot be reached takes seconds.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple


class Answer(NamedTuple):
    """A commit; or, where it is empty, the reason why there is none."""

    commit: str
    reason: str = ""


# by model and revision, while ``remember_answers`` lasts
_ANSWERS: ContextVar[dict[tuple[str, str | None], Answer] | None] = ContextVar("_ANSWERS", default=None)


@contextmanager
def remember_answers() -> Iterator[None]:
    """Ask once for each model and revision, in this block or in calls of the function that this decorates.

    A mixture names the same models in each of its members. A block within another shares its answers; they are
    forgotten when the outer one ends, so that what was downloaded meanwhile is found.
    """
    if _ANSWERS.get() is not None:
        yield
        return
    token = _ANSWERS.set({})
    try:
        yield
    finally:
        _ANSWERS.reset(token)


def find_commit(model: str, revision: str | None) -> Answer:
    """The commit of a model's branch, tag or, for None, of its main branch."""
    answers = _ANSWERS.get()
    known = {} if answers is None else answers
    if (model, revision) not in known:
        known[model, revision] = _ask(model, revision)
    return known[model, revision]


def _ask(model: str, revision: str | None) -> Answer:
    from huggingface_hub import snapshot_download

    try:
        # the library falls back to its cache by itself, but asks the hub first; a branch that moves there must not
        # change the name of what is already in use here
        found = _find_cached(model, revision) or snapshot_download(
            model, revision=revision, allow_patterns="config.json"
        )
    except Exception as error:  # connection errors are of the HTTP client that this version of the library has
        first_line = str(error).partition("\n")[0]
        return Answer("", f"{type(error).__name__}: {first_line}")
    return Answer(Path(found).name)


def _find_cached(model: str, revision: str | None) -> str | None:
    """The directory of the revision in the cache of this machine."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return str(snapshot_download(model, revision=revision, allow_patterns="config.json", local_files_only=True))
    except LocalEntryNotFoundError:
        return None
