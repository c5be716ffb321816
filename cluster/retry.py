"""Waiting out errors that pass: which they are, how long to wait, in one place.

A disk that is mounted from elsewhere and an object store fail for moments: throttling, a lost connection, a server that
restarts. ``patiently`` calls a function again after 1, 5 and 25 seconds; the clients of the store have by then made
their own few attempts each time. Every operation of a ``Place`` is called so, and every unit of work, whose reads of
open files may fail in the middle.
"""

import errno
import logging
import re
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_chain, wait_fixed

from cluster.errors import StorageError

Result = TypeVar("Result")
log = logging.getLogger("babelray")
PAUSES_S = (1, 5, 25)
TRANSIENT_ERRNO = frozenset(
    {errno.EAGAIN, errno.EINTR, errno.EIO, errno.ESTALE, errno.ENETDOWN, errno.ENETUNREACH, errno.ENOTEMPTY}
)  # ENOTEMPTY: another process wrote into a directory while it was being deleted
TRANSIENT_S3 = re.compile(  # pyarrow names the kind of an S3 error in its text alone
    r"AWS Error (SLOW_DOWN|THROTTLING|REQUEST_TIMEOUT|NETWORK_CONNECTION|INTERNAL_FAILURE|SERVICE_UNAVAILABLE"
    r"|UNKNOWN \(HTTP status 5\d\d\))"
)
TRANSIENT_CODES = frozenset(
    {"SlowDown", "Throttling", "RequestTimeout", "InternalError", "ServiceUnavailable", "ConditionalRequestConflict"}
)


def patiently(function: Callable[..., Result], *args: object) -> Result:
    """Call a function, and again after a pause when it fails for a reason that may pass. The last error is raised."""
    retrying = Retrying(
        retry=retry_if_exception(is_transient),
        wait=wait_chain(*map(wait_fixed, PAUSES_S)),
        stop=stop_after_attempt(1 + len(PAUSES_S)),
        before_sleep=_log_pause,
        reraise=True,
    )
    return retrying(function, *args)


def is_transient(error: BaseException) -> bool:
    """Whether an error of a disk or a store may be gone a moment later (throttling, a lost connection)."""
    cause = error.__cause__ if isinstance(error, StorageError) else error
    if isinstance(cause, (ConnectionError, TimeoutError)):
        return True
    if isinstance(cause, OSError):
        return cause.errno in TRANSIENT_ERRNO or bool(TRANSIENT_S3.search(str(cause)))
    return _is_transient_botocore(cause) or _is_transient_cloud(cause)


def _is_transient_cloud(error: BaseException | None) -> bool:
    """The same of an error of gcsfs, of Azure's client and of the HTTP client of both, told by name."""
    names = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
    if names & {"aiohttp.ClientConnectionError", "aiohttp.ClientPayloadError"}:
        return True
    if names & {"azure.ServiceRequestError", "azure.ServiceResponseError"}:
        return True
    if names & {"gcsfs.HttpError", "azure.HttpResponseError"}:
        status = getattr(error, "status_code", None) or getattr(error, "code", None) or 0
        return str(status).isdigit() and (int(status) >= 500 or int(status) in (408, 429))
    return False


def _is_transient_botocore(error: BaseException | None) -> bool:
    """The same of an error of boto3's. Told by name, so that botocore is imported only where S3 is used."""
    names = {kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "botocore.exceptions"}
    if "ClientError" in names:
        answer = getattr(error, "response", {})
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status >= 500 or status == 429 or answer.get("Error", {}).get("Code") in TRANSIENT_CODES
    return bool(names & {"ConnectionError", "HTTPClientError", "IncompleteReadError"})


def _log_pause(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    pause_s = state.next_action.sleep if state.next_action else 0
    log.warning("trying again in %g s: %s", pause_s, str(error).partition("\n")[0])
