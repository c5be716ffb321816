"""Fingerprints: equal content has one name everywhere, different content never has."""

import pickle
import subprocess
import sys
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError, create_model

from cluster.component import NOT_CONTENT, Component, Resources, Speed, canonical, defaults, fingerprint

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


class Inner(Component):
    a: int = 1
    resources: Resources = Resources()


class Outer(Component):
    inner: Inner = Inner()
    names: tuple[str, ...] = ("x",)


@given(VALUES, VALUES)
def test_fingerprints_are_equal_only_for_equal_content(a: Any, b: Any) -> None:
    assert (fingerprint(a) == fingerprint(b)) == (repr(canonical(a)) == repr(canonical(b)))


@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_order_of_keys_does_not_matter(tree: dict[str, int]) -> None:
    assert fingerprint(tree) == fingerprint(dict(reversed(tree.items())))


def test_resources_do_not_count_at_any_depth() -> None:
    slow, fast = Outer(), Outer(inner=Inner(resources=Resources(gpus=8, actors=100)))
    assert fingerprint(slow) == fingerprint(fast)
    assert fingerprint(slow) != fingerprint(Outer(inner=Inner(a=2)))


def test_same_in_another_process_with_another_hash_seed() -> None:
    code = "from tests.test_component import Outer, fingerprint; print(fingerprint(Outer()))"
    from pathlib import Path

    root = Path(__file__).parents[1]
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd=root,
            env={"PYTHONHASHSEED": seed},
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert seen == {fingerprint(Outer())}


@pytest.mark.parametrize("value", [print, {1, 2}, object(), b"bytes"])
def test_what_has_no_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="cannot fingerprint"):
        fingerprint({"x": value})


def test_unknown_and_changed_fields_are_refused() -> None:
    with pytest.raises(ValueError, match="Extra inputs"):
        Inner(b=2)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="frozen"):
        Inner().a = 2  # type: ignore[misc]


class Paced(Component):
    batch: Speed = Speed(64)
    most: Speed | None = None
    depth: int = 1


def test_a_speed_does_not_count_however_it_is_written() -> None:
    usual = fingerprint(Paced())
    for other in (Paced(batch=8), Paced(most=8), Paced().model_copy(update={"batch": 8}), Paced(batch=8, most=64)):
        assert fingerprint(other) == usual
    assert fingerprint(Paced(depth=2)) != usual
    assert fingerprint({"batch": Speed(1), "n": 1}) == fingerprint({"batch": Speed(2), "n": 1})
    assert fingerprint({"batch": 1}) != fingerprint({"batch": 2})


def test_a_speed_is_shown_copied_and_checked_as_a_number() -> None:
    paced = Paced(batch=8)
    assert paced.model_dump(mode="json") == {"batch": 8, "most": None, "depth": 1}
    assert paced.batch // 3 == 2
    for again in (pickle.loads(pickle.dumps(paced)), Paced.model_validate_json(paced.model_dump_json())):
        assert again == paced
        assert isinstance(again.batch, Speed)
    for wrong in (0, "many", 1.5, None):
        with pytest.raises(ValidationError):
            Paced(batch=wrong)


class Lists(Component):
    """A component with one field more than ``Short``."""

    a: int
    names: tuple[str, ...] = ("x",)
    inner: Inner = Inner()


def test_a_new_optional_field_keeps_the_fingerprint() -> None:
    class Short(Component):
        a: int

    assert fingerprint(Lists(a=1)) == fingerprint(Short(a=1))
    assert fingerprint(Lists(a=1, names=("x", "y"))) != fingerprint(Short(a=1))


def test_a_raised_version_changes_the_fingerprint_also_of_a_default(monkeypatch: pytest.MonkeyPatch) -> None:
    before, other = fingerprint(Lists(a=1)), fingerprint(Paced())
    monkeypatch.setattr(Inner, "version", 2)
    assert fingerprint(Lists(a=1)) != before
    assert fingerprint(Paced()) == other


class Labelled(Component):
    note: Annotated[str, NOT_CONTENT] = ""
    a: int = 1


def test_a_label_does_not_count() -> None:
    assert fingerprint(Labelled(note="one")) == fingerprint(Labelled(note="two")) != fingerprint(Labelled(a=2))


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
FIELDS = st.dictionaries(st.sampled_from("abcd"), SCALARS, min_size=1)


def make_class(fields: dict[str, Any], version: int = 1) -> type[Component]:
    """A component class with these fields, each of any type."""
    typed: dict[str, Any] = {name: (Any, value) for name, value in fields.items()}
    kind = create_model("Made", __base__=Component, **typed)
    kind.version = version
    return kind


def nest(component: Component) -> list[Any]:
    """The component by itself and in everything that may hold one."""
    holder = create_model("Holder", __base__=Component, held=(Any, None))
    return [component, holder(held=component), holder(held=(component,)), holder(held={"x": component}), [component]]


@given(FIELDS, FIELDS, SCALARS)
def test_a_new_optional_field_keeps_every_fingerprint(fields: dict[str, Any], values: Any, new: Any) -> None:
    values = {name: value for name, value in values.items() if name in fields}
    before = make_class(fields)(**values)
    after = make_class({**fields, "new": new})(**values)
    for old, young in zip(nest(before), nest(after), strict=True):
        assert fingerprint(old) == fingerprint(young)


@given(FIELDS, SCALARS, SCALARS)
def test_a_field_counts_when_it_differs_from_its_default(fields: dict[str, Any], default: Any, value: Any) -> None:
    kind = make_class({**fields, "new": default})
    for usual, other in zip(nest(kind()), nest(kind(new=value)), strict=True):
        assert (fingerprint(usual) == fingerprint(other)) == (repr(canonical(value)) == repr(canonical(default)))


@given(FIELDS, SCALARS, SCALARS)
def test_a_changed_default_is_told_by_the_raised_version(fields: dict[str, Any], old: Any, new: Any) -> None:
    before = make_class({**fields, "new": old})()
    silent, raised = (make_class({**fields, "new": new}, version)() for version in (1, 2))
    for one, same, other in zip(nest(before), nest(silent), nest(raised), strict=True):
        assert fingerprint(one) == fingerprint(same)  # so tests/fingerprints.json guards defaults
        assert fingerprint(one) != fingerprint(other)


def test_values_that_python_calls_equal_are_told_apart() -> None:
    for default, value in ((1, True), (0, False), (0.0, -0.0), (1, 1.0)):
        kind = make_class({"new": default})
        assert fingerprint(kind()) != fingerprint(kind(new=value))


def test_a_component_may_say_what_is_left_out_of_it() -> None:
    class Named(Component):
        place: Annotated[str, NOT_CONTENT] = ""
        content: str = ""

        def left_out(self) -> set[str]:
            return super().left_out() - (set() if self.content else {"place"})

    assert fingerprint(Named(place="a")) != fingerprint(Named(place="b"))
    assert fingerprint(Named(place="a", content="x")) == fingerprint(Named(place="b", content="x"))
    assert fingerprint(Named(place="a", content="x")) != fingerprint(Named(place="a", content="y"))


def test_the_defaults_that_are_guarded() -> None:
    assert defaults(Lists) == {"names": ["x"], "inner": {}}
    assert defaults(Paced) == {"depth": 1}
    assert defaults(Labelled) == {"a": 1}


def test_fingerprints_of_today() -> None:
    """Another canonical form would give every artifact another name. Whoever must change it renames all of them."""
    assert fingerprint(Lists(a=1)) == "015abd7f5cc5"
    tree = {"config": Outer(inner=Inner(a=2)), "inputs": {"docs.zh": "0" * 12}, "rows": [], "table": None, "x": 0.1}
    assert fingerprint(tree) == "8fd904d96d50"
