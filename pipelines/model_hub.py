"""What the Hugging Face hub says of a model: the commit that a revision means, or why that is not known, and its files.

The local cache is asked first, then the hub. A hub that answers 429 or 5xx is asked again for half a minute. Once it
could not be reached, a plan asks it no more: each question would take seconds.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from cluster.errors import RecipeError, StorageError
from cluster.retry import patiently

TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})  # answers that another try may not get


class Answer(NamedTuple):
    """A commit; or, where it is empty, the reason why there is none."""

    commit: str
    reason: str = ""


class UnreachableError(Exception):
    """The hub does not answer."""


class BusyError(ConnectionError):
    """The hub says that it is busy: an error that ``patiently`` waits out."""


@dataclass
class Answers:
    """What the hub said, by model and revision; and why it cannot be reached, where it could not."""

    known: dict[tuple[str, str | None], Answer] = field(default_factory=dict)
    unreachable: str = ""


_ANSWERS: ContextVar[Answers | None] = ContextVar("_ANSWERS", default=None)  # while ``remember_answers`` lasts


@contextmanager
def remember_answers() -> Iterator[None]:
    """Ask once for each model and revision, in this block or in calls of the function that this decorates.

    A mixture names the same models in each of its members. A block within another shares its answers; they are
    forgotten when the outer one ends, so that what was downloaded meanwhile is found.
    """
    if _ANSWERS.get() is not None:
        yield
        return
    token = _ANSWERS.set(Answers())
    try:
        yield
    finally:
        _ANSWERS.reset(token)


def find_commit(model: str, revision: str | None) -> Answer:
    """The commit of a model's branch, tag or, for None, of its main branch."""
    answers = _ANSWERS.get() or Answers()
    if (model, revision) not in answers.known:
        answers.known[model, revision] = _ask(model, revision, answers)
    return answers.known[model, revision]


def download(model: str, revision: str | None, leave_out: Sequence[str]) -> str:
    """The directory of a model's files in the local cache, where those that are missing are downloaded to; files whose
    names match ``leave_out`` are not.

    Raises:
        RecipeError: the hub does not give them: no such model or revision, or no right to read it.
        StorageError: the hub cannot be reached.
    """
    try:
        return patiently(_fetch, model, revision, {"ignore_patterns": list(leave_out)})
    except (UnreachableError, BusyError) as error:
        raise StorageError(
            f"model {model!r}, revision {revision or 'main'}: not all of its files are in the Hugging Face cache of "
            f"this machine, and {error}. Run again when the hub can be reached, or name a directory"
        ) from error


def _ask(model: str, revision: str | None, answers: Answers) -> Answer:
    try:
        # the library falls back to its cache by itself, but asks the hub first; a branch that moves there must not
        # change the name of what is already in use here
        if found := _find_cached(model, revision):
            return Answer(Path(found).name)
        if answers.unreachable:
            return Answer("", answers.unreachable)
        return Answer(Path(patiently(_fetch, model, revision, {"allow_patterns": "config.json"})).name)
    except (UnreachableError, BusyError) as error:
        answers.unreachable = str(error)
        return Answer("", answers.unreachable)
    except (RecipeError, StorageError) as error:
        return Answer("", str(error))


def _find_cached(model: str, revision: str | None) -> str | None:
    """The directory of the revision in the cache of this machine; None also for what cannot be a model's name, of which
    ``_fetch`` says what is wrong."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return str(snapshot_download(model, revision=revision, allow_patterns="config.json", local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def _fetch(model: str, revision: str | None, patterns: dict[str, Any]) -> str:
    """Download the files of a model that match, where they are not in the cache; returns their directory.

    Files that have arrived are kept. The library goes on in the middle of one whose connection broke, and begins it
    anew after an answer of 5xx.

    Raises:
        RecipeError: the hub refuses.
        UnreachableError, BusyError: it does not answer, or says that it cannot now.
        StorageError: the cache cannot be written.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError, LocalEntryNotFoundError

    try:
        return str(snapshot_download(model, revision=revision, **patterns))
    except HFValidationError as error:
        raise RecipeError(f"the hub has no models of such a name: {_first_line(error)}") from error
    except (HTTPError, LocalEntryNotFoundError) as error:
        cause = error.__cause__ or error if isinstance(error, LocalEntryNotFoundError) else error
        if not isinstance(cause, HfHubHTTPError):
            raise UnreachableError(
                f"the hub cannot be reached: {type(cause).__name__}: {_first_line(cause)}"
            ) from error
        if (status := cause.response.status_code) in TRANSIENT:
            raise BusyError(f"the hub answers {status}, asked several times") from error
        raise RecipeError(f"model {model!r}, revision {revision or 'main'}: {_describe_refusal(cause)}") from error
    except OSError as error:
        raise StorageError(
            f"model {model!r} cannot be kept in the Hugging Face cache: {type(error).__name__}: {_first_line(error)}. "
            "Look at the disk and HF_HOME"
        ) from error


def _describe_refusal(error: Any) -> str:
    """Why the hub does not give a model, and what to do. The token is in no such text."""
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return (
            "the hub gives it to those alone who accepted its conditions: accept them on the model's page at "
            f"{constants.ENDPOINT}, and set HF_TOKEN on every node to a token that may read it"
        )
    if isinstance(error, RepositoryNotFoundError) or error.response.status_code in (401, 403):
        return (
            f"{constants.ENDPOINT} has no such model, or none that HF_TOKEN opens: mend the name, or set HF_TOKEN "
            "on every node to a token that may read it"
        )
    if isinstance(error, RevisionNotFoundError):
        return "the hub has no such revision of it: name a branch, a tag or a commit (40 hex digits)"
    return f"the hub answers {error.response.status_code}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
