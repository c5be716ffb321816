"""Components: small frozen configs that build things, and the fingerprint that names what they produce.

A component is a pydantic model that is frozen, closed (unknown keys are errors) and validated at birth. The tagged
union of the components of one role (translator, scorer, …) is the registry of that role: there is no other.

``fingerprint`` hashes everything in a value that can change a result. ``Resources`` and a ``Speed`` change only the
speed, and a ``Location`` only where data stand: they are left out by type, so a run may move from a laptop to a
cluster, take smaller batches where memory runs out, find its data in another directory, and keep every artifact.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from cluster.storage import Place


class Component(BaseModel):
    """Base class of every config in a recipe: frozen, closed, validated when it is made."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class Resources(Component):
    """What one actor of a step takes, and how many may run. Never part of a fingerprint.

    ``cpus`` and ``gpus`` are per actor. ``actors`` is the largest pool; ``None`` means as many as the cluster holds.
    ``memory_gb`` is Ray's logical memory per actor, used for placement.
    """

    cpus: float = Field(1, gt=0)
    gpus: float = Field(0, ge=0)
    memory_gb: float | None = Field(None, gt=0)
    actors: int | None = Field(None, ge=1)


class Location(str):
    """Where data stand: a path or an ``s3://`` URI. Never part of a fingerprint; the data's own digest must be.

    In a component's field it is made from a string, a path being taken absolute: workers run elsewhere.
    """

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            lambda text: cls(Place.of(text).uri), core_schema.str_schema(min_length=1)
        )


class Speed(int):
    """A number, at least 1, that decides how fast and in how much memory, not what: texts in a batch. Never part of a
    fingerprint, and neither is the None of a field ``Speed | None``.
    """

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls, core_schema.int_schema(ge=1))


LEFT_OUT = (Resources, Location, Speed)


def canonical(value: Any) -> Any:
    """Reduce a value to JSON types with one spelling each.

    Raises:
        TypeError: the value has no canonical form (a function, a set, an object with a default repr). Guessing one
            would silently give the same content two names, or two contents the same name.
    """
    if isinstance(value, BaseModel):
        kinds = {k: field.annotation for k, field in type(value).model_fields.items()}
        fields = {k: getattr(value, k) for k, kind in kinds.items() if Speed not in (kind, *get_args(kind))}
        return {k: canonical(v) for k, v in sorted(fields.items()) if not isinstance(v, LEFT_OUT)}
    if isinstance(value, Mapping):
        return {str(k): canonical(v) for k, v in sorted(value.items()) if not isinstance(v, LEFT_OUT)}
    if isinstance(value, (list, tuple)):
        return [canonical(v) for v in value]
    if isinstance(value, Enum):
        return canonical(value.value)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(
        f"cannot fingerprint a {type(value).__name__}: expected pydantic models, mappings, lists, strings, numbers, "
        "booleans or None. Make it one of these, or add a case to cluster.component.canonical."
    )


def fingerprint(value: Any) -> str:
    """Return 12 hex digits that identify ``value`` in every process and on every machine."""
    text = json.dumps(canonical(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
