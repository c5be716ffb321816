"""Where data stand is no part of what they are."""

import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError

from cluster.component import Component, Location, fingerprint
from cluster.errors import StorageError


class Reads(Component):
    path: Location
    other: Location | None = None
    depth: int = 1


def test_a_location_does_not_change_the_fingerprint_and_its_neighbours_do():
    here, there = Reads(path="a"), Reads(path="s3://bucket/b?region=x")
    assert fingerprint(here) == fingerprint(there)
    assert fingerprint(here) != fingerprint(Reads(path="a", depth=2))
    assert fingerprint({"where": Location("a"), "n": 1}) == fingerprint({"where": Location("b"), "n": 1})
    assert fingerprint({"where": "a"}) != fingerprint({"where": "b"})


def test_a_location_survives_copies_pickles_and_json():
    reads = Reads(path="a")
    for again in (
        pickle.loads(pickle.dumps(reads)),
        reads.model_copy(),
        Reads.model_validate_json(reads.model_dump_json()),
    ):
        assert again == reads
        assert isinstance(again.path, Location)


def test_a_path_is_taken_absolute_and_a_uri_as_it_is():
    assert Reads(path="some/{lang}.tsv").path == str(Path.cwd() / "some/{lang}.tsv")
    assert Reads(path="s3://bucket/x?region=y").path == "s3://bucket/x?region=y"
    with pytest.raises(StorageError, match="expected a path or a URI that begins with s3://"):
        Reads(path="https://example.org/x")


def test_a_location_is_a_string_that_is_not_empty():
    for wrong in ("", 3, None):
        with pytest.raises(ValidationError):
            Reads(path=wrong)
