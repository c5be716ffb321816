"""What every component promises, whatever its role: walks the unions, so that a new member is held to it at once."""

import inspect
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import TypeAdapter, ValidationError

from cluster.component import Component, fingerprint
from pipelines.indexes import Index
from pipelines.models import Pretrained
from pipelines.scorers import Scorer
from pipelines.sources import AnySource
from pipelines.students import AnyStudent
from pipelines.synthesis import Synthesis
from pipelines.training.losses import AnyLoss
from pipelines.translators import Translator

ROLES = {  # the union, and what its members are asked for
    "source": (AnySource, {"docs": ["lang", "split"], "queries": ["lang", "split"], "qrels": ["lang", "split"]}),
    "translator": (Translator, {}),
    "synthesis": (Synthesis, {"build": ["lang", "wording"]}),
    "scorer": (Scorer, {"build": ["collection"]}),
    "student": (AnyStudent, {"build": ["corpus", "seed"]}),
    "index": (Index, {"build": [], "open": ["directories", "share"]}),
    "loss": (AnyLoss, {}),
}
REQUIRED: dict[str, Any] = {
    "path": "somewhere",
    "docs_path": "docs.jsonl",
    "queries_path": "queries.jsonl",
    "qrels_path": "qrels.tsv",
    "id": {"en": "a/{split}"},
    "model": "some/model",
    "url": "https://host/v1",
    "base": {"kind": "checkpoint", "model": "some/model"},
    "of": [{"kind": "bm25"}, {"kind": "bm25", "k1": 1.2}],
}
MEMBERS = [
    pytest.param(role, member, id=f"{role}-{member.model_fields['kind'].default}")
    for role, (union, _) in ROLES.items()
    for member in get_args(get_args(union)[0])
]


def smallest(member: type[Component]) -> dict[str, Any]:
    """The kind, and what has no default."""
    needed = [name for name, f in member.model_fields.items() if f.is_required()]
    needed += ["model"] if issubclass(member, Pretrained) else []  # it, or else a recipe
    return {"kind": member.model_fields["kind"].default} | {name: REQUIRED[name] for name in needed}


@pytest.mark.parametrize(("role", "member"), MEMBERS)
def test_kind_chooses_the_member_and_survives_json(role: str, member: type[Component]) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(ROLES[role][0])
    made = adapter.validate_python(smallest(member))
    assert type(made) is member
    again = adapter.validate_json(adapter.dump_json(made))
    assert again == made
    assert fingerprint(again) == fingerprint(made)
    assert get_origin(member.model_fields["kind"].annotation) is Literal


@pytest.mark.parametrize(("role", "member"), MEMBERS)
def test_members_are_closed_frozen_and_described(role: str, member: type[Component]) -> None:
    with pytest.raises(ValidationError, match="not_a_key"):
        member.model_validate({**smallest(member), "not_a_key": 1})
    with pytest.raises(ValidationError, match="frozen"):
        member.model_validate(smallest(member)).kind = "other"  # type: ignore[attr-defined]
    assert member.__doc__
    assert member.__doc__ != Component.__doc__


@pytest.mark.parametrize(("role", "member"), MEMBERS)
def test_members_have_the_methods_of_their_role(role: str, member: type[Component]) -> None:
    for name, parameters in ROLES[role][1].items():
        found = list(inspect.signature(getattr(member, name)).parameters)[1:]
        assert found[: len(parameters)] == parameters, f"{member.__name__}.{name}"


def test_kinds_are_unique_in_a_role() -> None:
    for union, _ in ROLES.values():
        kinds = [member.model_fields["kind"].default for member in get_args(get_args(union)[0])]
        assert len(set(kinds)) == len(kinds) > 1
