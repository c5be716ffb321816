"""Components: small frozen configs that build things, and the fingerprint that names what they produce.

A component is a pydantic model that is frozen, closed (unknown keys are errors) and validated at birth. The tagged
union of the components of one role (translator, scorer, …) is the registry of that role: there is no other.

``fingerprint`` hashes everything in a value that can change a result, and nothing else:

* ``Resources`` and a ``Speed`` change only the speed, a ``Location`` only where data stand, and a field marked
  ``NOT_CONTENT`` is a label. They are left out, so a run may move from a laptop to a cluster, take smaller batches
  where memory runs out, find its data in another directory, and keep every artifact.
* A field that equals its default is left out, so that a new optional field never re-makes what was paid for.
* ``version``, where a class has raised it above 1, is hashed: behaviour that changed at equal config has another name.

``tests/test_fingerprints.py`` compares every component's defaults and code with a golden file, so that neither can
change in silence.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any, ClassVar, Final, get_args

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from cluster.storage import Place

NOT_CONTENT: Final = "not content"  # as Annotated[str, NOT_CONTENT]: a field that no fingerprint covers


class Component(BaseModel):
    """Base class of every config in a recipe: frozen, closed, validated when it is made.

    ``version`` is raised by whoever changes what a component makes at equal config, or one of its defaults.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
    version: ClassVar[int] = 1

    def left_out(self) -> set[str]:
        """Names of the fields that no fingerprint covers."""
        return {name for name, field in type(self).model_fields.items() if not _is_content(field)}


class Resources(Component):
    """What one actor of a step takes, and how many may run. Never part of a fingerprint.

    ``cpus`` and ``gpus`` are per actor; with ``gpus`` = 0 an actor sees no accelerator. ``actors`` is the largest pool;
    ``None`` means as many as the cluster holds. ``memory_gb`` is Ray's logical memory per actor, used for placement.
    ``environment`` names a runtime environment of the recipe's ``[environments]`` in which the actors run.
    """

    cpus: float = Field(1, gt=0)
    gpus: float = Field(0, ge=0)
    memory_gb: float | None = Field(None, gt=0)
    actors: int | None = Field(None, ge=1)
    environment: str = ""


class Location(str):
    """Where data stand: a path or the URI of a store. Never part of a fingerprint; the data's own digest must be.

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
    if isinstance(value, Component):
        version = {"version": value.version} if value.version > 1 else {}
        return version | _content(value)
    if isinstance(value, BaseModel):
        return canonical(dict(value))
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


def _content(component: Component) -> dict[str, Any]:
    """The canonical form of the fields that a component's fingerprint covers."""
    kept, left_out = {}, component.left_out()
    for name, field in sorted(type(component).model_fields.items()):
        value = getattr(component, name)
        if isinstance(value, LEFT_OUT) or name in left_out:
            continue
        form = canonical(value)
        if name == "kind" or _has_new_version(value) or not _is_default(form, field):
            kept[name] = form
    return kept


def defaults(kind: type[Component]) -> dict[str, Any]:
    """The canonical defaults of a class's fields that a fingerprint covers: what ``tests/fingerprints.py`` guards. A
    default that is computed is never left out of a fingerprint, so it is named here and not guarded."""
    return {
        name: "computed" if field.default_factory else canonical(field.default)
        for name, field in sorted(kind.model_fields.items())
        if not field.is_required() and _is_content(field) and not isinstance(field.default, LEFT_OUT)
    }


def _is_content(field: FieldInfo) -> bool:
    """Whether no part of the field's annotation says that it is left out: also the None of ``Speed | None`` is."""
    kinds = (field.annotation, *get_args(field.annotation))
    return NOT_CONTENT not in field.metadata and Speed not in kinds


def _is_default(form: Any, field: FieldInfo) -> bool:
    """Whether a field's canonical form is that of its default; never where that is computed, perhaps by machine."""
    if field.is_required() or field.default_factory is not None:
        return False
    return repr(form) == repr(canonical(field.default))  # == would take True for 1, and 0.0 for -0.0


def _has_new_version(value: Any) -> bool:
    """Whether a component in this value has a version above 1: then even a default must be hashed."""
    if isinstance(value, Component):
        return value.version > 1 or any(_has_new_version(item) for _, item in value)
    if isinstance(value, Mapping):
        return any(map(_has_new_version, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_has_new_version, value))


def fingerprint(value: Any) -> str:
    """Return 12 hex digits that identify ``value`` in every process and on every machine."""
    text = json.dumps(canonical(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
