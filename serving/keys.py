"""API keys: who may ask, and how often. ``python -m serving.keys NAME`` makes one.

A key is 256 random bits, shown once. What is kept is its SHA-256: so many bits cannot be guessed from it, and no slow
hash is needed. Keys stand in the file that ``BABELRAY_API_KEYS_FILE`` names, one a line, or in the variable
``BABELRAY_API_KEYS``, separated by blanks:

    name:sha256:per_minute        per_minute may be left out; # begins a comment

A key may send ``per_minute`` requests in a burst and so many in each minute; each gateway counts by itself.
"""

import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel, ConfigDict, Field

from cluster.errors import RecipeError

VARIABLE, FILE_VARIABLE = "BABELRAY_API_KEYS", "BABELRAY_API_KEYS_FILE"
NONE = "none"  # in place of keys: nobody needs one
LINE = "name:sha256 or name:sha256:per_minute"


class Key(BaseModel):
    """A key that is accepted: its holder's name, the SHA-256 of it in hexadecimal, and how often it may be used."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, pattern=r"^[^:\s]+$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    per_minute: int | None = Field(None, ge=1)


def hash_key(key: str) -> str:
    """The SHA-256 of a key, in hexadecimal."""
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


def read_keys(environment: Mapping[str, str] = os.environ) -> tuple[Key, ...]:
    """Read the keys of both variables.

    Raises:
        RecipeError: the file cannot be read, an entry is not a key, or a name occurs twice.
    """
    lines = [(VARIABLE, entry) for entry in environment.get(VARIABLE, "").split() if entry != NONE]
    if environment.get(FILE_VARIABLE):
        file = Path(environment[FILE_VARIABLE])
        try:
            text = file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"cannot read the API keys in {file}: {error}") from error
        numbered = enumerate((line.partition("#")[0].strip() for line in text.splitlines()), 1)
        lines += [(f"{file}, line {number}", line) for number, line in numbered if line]
    keys = [_read_key(where, entry) for where, entry in lines]
    names = [key.name for key in keys]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RecipeError(f"expected a name for each API key, got {', '.join(twice)} more than once: rename one")
    return tuple(keys)


def _read_key(where: str, entry: str) -> Key:
    name, _, rest = entry.partition(":")
    digest, _, limit = rest.partition(":")
    try:
        return Key(name=name, sha256=digest.lower(), per_minute=int(limit) if limit else None)
    except ValueError as error:
        shown = f"{name[:40]}:…"  # not the rest: somebody may have written the key itself
        raise RecipeError(
            f"{where}: expected {LINE}, got {shown}. `python -m serving.keys NAME` prints such a line"
        ) from error


@dataclass
class KeyRing:
    """The keys of a gateway, and what is left of the limit of each."""

    keys: tuple[Key, ...]
    clock: Callable[[], float] = time.monotonic
    _left: dict[str, tuple[float, float]] = field(default_factory=dict)  # by name: requests left, and when

    def find(self, key: str) -> Key | None:
        """Find the entry of a key. Takes the same time for every unknown key."""
        digest = hash_key(key)
        matching = [entry for entry in self.keys if hmac.compare_digest(entry.sha256, digest)]
        return matching[0] if matching else None

    def spend(self, key: Key) -> float:
        """Count one request. Returns 0 when it is allowed, else the seconds until one is."""
        if key.per_minute is None:
            return 0.0
        now = self.clock()
        left, when = self._left.get(key.name, (float(key.per_minute), now))
        left = min(float(key.per_minute), left + (now - when) * key.per_minute / 60)
        allowed = left >= 1
        self._left[key.name] = (left - allowed, now)
        return 0.0 if allowed else (1 - left) * 60 / key.per_minute


def make_key(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    per_minute: Annotated[int | None, typer.Option(min=1, help="How many requests a minute it may send.")] = None,
) -> None:
    """Make an API key. Prints the key, to be given to its holder, and the line for the file of keys."""
    secret = f"br-{secrets.token_urlsafe(32)}"
    try:
        key = Key(name=name, sha256=hash_key(secret), per_minute=per_minute)
    except ValueError as error:
        raise typer.BadParameter(f"expected a name without blanks and colons, got {name!r}") from error
    limit = f":{key.per_minute}" if key.per_minute else ""
    typer.echo(f"key   {secret}\nline  {key.name}:{key.sha256}{limit}")


if __name__ == "__main__":
    typer.run(make_key)
