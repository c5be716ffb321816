"""Who may ask the server: API keys, the names under which it is asked, pages of other sites; and compression.

Four ASGI middlewares in front of the gateway, from the outside: gzip, CORS, the ``Host`` header, keys; what they
refuse takes no place in the gateway's queue. A server on loopback
needs no key, but answers only to the names of loopback: else a page in the user's browser could read it under a name
of its own that leads there (DNS rebinding). A server that listens beyond loopback needs keys. Who serves says so in
the environment of the command, which writes it into the application's config:

    BABELRAY_API_KEYS        lines of keys (see ``keys``), separated by blanks; or "none": nobody needs a key, since a
                             proxy in front checks who asks
    BABELRAY_API_KEYS_FILE   a file of such lines
    BABELRAY_ALLOW_ORIGINS   sites whose pages may ask from a browser, separated by blanks
"""

import math
import os
import re
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from cluster.errors import RecipeError
from serving.admission import find_path
from serving.keys import FILE_VARIABLE, NONE, VARIABLE, Key, KeyRing, read_keys
from serving.messages import Fault, Problem
from serving.problems import Phrase, describe_faults, format_value, respond

ORIGINS = "BABELRAY_ALLOW_ORIGINS"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
OPEN = ("/", "/health", "/livez", "/readyz")  # the empty page, and what probes ask without a key
VECTOR_ROUTES = ("/v1/embeddings", "/encode", "/embed")
GZIP_BYTES = 1024  # shorter bodies fit one packet
GZIP_LEVEL = 4


class Access(BaseModel):
    """Who may ask.

    Attributes:
        keys: those that are accepted; without any, nobody needs one.
        hosts: names under which the server answers, without port; "*" for every name.
        origins: sites whose pages may ask from a browser ("https://example.org"); "*" for all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    keys: tuple[Key, ...] = ()
    hosts: tuple[str, ...] = LOOPBACK
    origins: tuple[str, ...] = ()


OPEN_TO_ALL = Access(hosts=("*",))


def read_access(host: str, environment: Mapping[str, str] = os.environ) -> Access:
    """Read who may ask a server that listens on ``host``.

    Raises:
        RecipeError: it listens beyond loopback and there are no keys; or an entry is no valid key or origin.
    """
    origins = tuple(environment.get(ORIGINS, "").split())
    if wrong := [origin for origin in origins if origin != "*" and not re.fullmatch(r"https?://[^/\s]+", origin)]:
        raise RecipeError(f"{ORIGINS}: expected sites such as https://example.org, got {', '.join(wrong)}")
    keys = read_keys(environment)
    is_loopback = host in LOOPBACK
    if not keys and not is_loopback and environment.get(VARIABLE, "").strip() != NONE:
        raise RecipeError(
            f"{host} is reached from other machines, so a server there needs API keys: make one with "
            f"`python -m serving.keys NAME`, and name the file of them in {FILE_VARIABLE}. "
            f"Where a proxy in front checks who asks, set {VARIABLE}={NONE}"
        )
    return Access(keys=keys, hosts=LOOPBACK if is_loopback else ("*",), origins=origins)


def guard(app: ASGIApp, access: Access) -> ASGIApp:
    """Put what ``access`` says, and compression of responses, in front of an application."""
    if access.keys:
        app = _KeyCheck(app, KeyRing(access.keys))
    if "*" not in access.hosts:
        app = _HostCheck(app, access.hosts)
    if access.origins:
        app = CORSMiddleware(
            app,
            allow_origins=list(access.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key"],
            max_age=600,
        )
    return _Compression(app, minimum_size=GZIP_BYTES, compresslevel=GZIP_LEVEL)


class _Compression(GZipMiddleware):
    """ASGI middleware that compresses responses, but for vectors: these are long, hardly get shorter, and to compress
    them would hold up every other request."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and find_path(scope) in VECTOR_ROUTES:
            return await self.app(scope, receive, send)
        return await super().__call__(scope, receive, send)


class _KeyCheck:
    """ASGI middleware that refuses requests without a key (401) and keys that ask too often (429)."""

    def __init__(self, app: ASGIApp, ring: KeyRing):
        self.app, self.ring = app, ring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _is_open(scope):
            return await self.app(scope, receive, send)
        given = _read_key(Headers(scope=scope))
        key = self.ring.find(given) if given else None
        if key is None:
            expected = "an API key: Authorization: Bearer KEY, or X-API-Key: KEY"
            got = Phrase("one that is not known" if given else "none")
            problem = describe_faults([Fault(field="Authorization", expected=expected, got=got)])
            return await respond(401, problem, {"WWW-Authenticate": "Bearer"})(scope, receive, send)
        if wait := self.ring.spend(key):
            seconds = math.ceil(wait)
            problem = Problem(
                error=f"key {key.name}: expected at most {key.per_minute} requests a minute, got more: "
                f"try again in {seconds} s"
            )
            return await respond(429, problem, {"Retry-After": str(seconds)})(scope, receive, send)
        return await self.app(scope, receive, send)


def _is_open(scope: Scope) -> bool:
    """Whether a request needs no key."""
    path = find_path(scope)
    return path in OPEN or path.startswith("/page/")


def _read_key(headers: Headers) -> str:
    """The key of a request; "" where there is none."""
    kind, _, value = headers.get("authorization", "").partition(" ")
    return value.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "")


class _HostCheck:
    """ASGI middleware that refuses requests under another name than those of the server (421)."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str]):
        self.app, self.hosts = app, tuple(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            host = Headers(scope=scope).get("host", "")
            if _strip_port(host) not in self.hosts:
                expected = f"{' or '.join(self.hosts)}, since the server answers to these names alone"
                problem = describe_faults([Fault(field="Host", expected=expected, got=format_value(host))])
                return await respond(421, problem)(scope, receive, send)
        return await self.app(scope, receive, send)


def _strip_port(host: str) -> str:
    """The name in a Host header, in lower case: "[::1]:8000" is "::1"."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
