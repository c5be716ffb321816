"""Licences on the card of a model: what the files beside the data say. tests/test_cli.py exports a trained student."""

import pytest

from pipelines.model_card import UNKNOWN, find_licences
from pipelines.sources import Bitext, Parallel
from pipelines.sources.atlas import AtlasSource


@pytest.mark.parametrize(
    ("line", "licence"),
    [
        (
            "* Licence: CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/)",
            "CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/)",
        ),
        ("**License:** CC0", "CC0"),
        ("license: mit", "mit"),
        ("The licence of this is unclear", UNKNOWN),
        ("", UNKNOWN),
    ],
)
def test_a_licence_is_what_the_readme_states(tmp_path, line, licence):
    (tmp_path / "README.md").write_text(f"# Some texts\n\nMade by hand.\n{line}\n* Counts: 3")
    assert find_licences(Parallel(path=str(tmp_path))) == {tmp_path.name: licence}


def test_each_directory_of_a_source_has_its_own(tmp_path):
    for name, licence in {
        "one": "Licence: A",
        "two": "Licence: B",
        "": "Licence: of the whole, which states none",
    }.items():
        (tmp_path / name / "pairs").mkdir(parents=True)
        (tmp_path / name / "README.md").write_text(licence)
    names = ("one/en-{lang}.tsv", "two/pairs/en-{lang}.tsv", "three/en-{lang}.tsv")
    found = find_licences(Bitext(path=str(tmp_path), names=names))
    assert found == {"one": "A", "two": "B", "three": UNKNOWN}


def test_the_embedded_collection_is_part_of_the_program():
    assert find_licences(AtlasSource()) == {"atlas": "part of the program"}
