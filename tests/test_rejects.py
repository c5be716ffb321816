"""What gates reject, shown to people: a run with the command line, and its samples on a page and as JSON."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.receipt import EXAMPLES, merge_facts, take_spaced
from cluster.storage import Place
from local_executor import run_here
from pipelines import verbs
from pipelines.__main__ import app
from pipelines.rejects import count_gated
from pipelines.terminal import QUIET

ROOT = Path(__file__).parents[1]
ENGLISH = "The old bridge over the river number {n} was built by the masons of the town, and carries carts to market."
GERMAN = "Die alte Brücke über den Fluss Nummer {n} bauten die Maurer der Stadt, und trägt Karren zum Markt hinüber."
FRENCH = "Le vieux pont sur le fleuve numéro {n} est l’œuvre des maçons de la ville et porte des chariots au marché."
ROWS, PART = 24, 4
UNTRANSLATED = 5  # the row without any translation
RECIPE = """
[source]
kind = "parallel"
path = "{folder}"
[languages]
docs = ["en", "de"]
[translate]
kind = "parallel"
[gates]
[student]
model = "minilm"
[index]
kind = "exact"
[systems.translated]
docs_in = "de"
index = {{ kind = "bm25" }}
[evaluate.own]
languages = ["en"]
[run]
rows_per_part = {part}
max_rejects = 0.9
"""


def translate(row: int) -> str:
    """Each sixth row is French, the one after it a copy, of the parts one and more."""
    return (FRENCH if row % 6 == 0 else ENGLISH if row % 6 == 1 else GERMAN).format(n=row)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A recipe of which the gate has run."""
    folder = tmp_path_factory.mktemp("bridges")
    english = [f"d{n}\t{ENGLISH.format(n=n)}" for n in range(ROWS)]
    german = [f"d{n}\t{translate(n)}" for n in range(ROWS) if n != UNTRANSLATED]
    for lang, lines in {"en": english, "de": german}.items():
        (folder / f"collection.{lang}.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    (folder / "queries.en.tsv").write_text("q1\tWho built the bridge?\n")
    (folder / "qrels.tsv").write_text("q1 0 d1 1\n")
    file = folder / "bridges.toml"
    file.write_text(RECIPE.format(folder=folder, part=PART), "utf-8")
    plan, root = verbs.load_plan(str(file), [f"root={folder / 'artifacts'}"])
    run_here(plan.find_steps("gate-de"), root)
    return str(file)


def show(recipe: str, *words: str) -> str:
    sets = f"root={Path(recipe).parent / 'artifacts'}"
    done = CliRunner(env={**QUIET, "COLUMNS": "120"}).invoke(app, ["show", recipe, "gate-de", "--set", sets, *words])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_json_has_source_and_translation_beside_the_reason_from_all_parts(recipe: str) -> None:
    (shown,) = json.loads(show(recipe, "--json"))
    rejected = shown["rejected"]
    assert {reason: found["count"] for reason, found in rejected.items()} == {
        "gate: language": 4,
        "gate: copied": 4,
        "no translation": 1,
    }
    assert rejected["gate: language"]["samples"] == [
        {"id": f"d{n}", "source": ENGLISH.format(n=n), "translation": FRENCH.format(n=n)} for n in (0, 6, 12, 18)
    ]
    assert [sample["id"] for sample in rejected["gate: copied"]["samples"]] == ["d1", "d7", "d13", "d19"]
    assert rejected["no translation"] == {"count": 1, "examples": [f"d{UNTRANSLATED}"]}
    assert "samples" not in shown["facts"]


def test_the_page_sets_each_translation_below_its_source(recipe: str) -> None:
    page = show(recipe)
    lines = [line.rstrip() for line in page[page.index("9 of 24 rejected") :].splitlines()]
    assert max(map(len, page.splitlines())) <= 120
    start = lines.index("gate: language  4")
    assert lines[start + 1] == "  d0"
    assert lines[start + 2].startswith("    source       The old bridge over the river number 0")
    text = " ".join(" ".join(lines[start:]).split())
    assert f"source {ENGLISH.format(n=6)} translation {FRENCH.format(n=6)} d12" in text
    assert text.endswith(f"no translation 1 d{UNTRANSLATED}")


def test_a_gate_that_goes_on_shows_what_it_rejected_so_far(recipe: str, tmp_path: Path) -> None:
    """The receipts of two parts, as a killed run leaves them."""
    plan, root = verbs.load_plan(recipe, [f"root={Path(recipe).parent / 'artifacts'}"])
    (gate,) = plan.find_steps("gate-de")
    receipts = {
        n: {
            "unit": n,
            "parts": [{"file": f"part-{n:05d}.parquet", "rows": PART}],
            "rejects": {"gate: length": {"count": 1, "examples": [f"d{n}"]}},
            "facts": {"samples": {"gate: length": [[f"d{n}", "long", "short"]]}},
        }
        for n in (1, 0)
    }
    for n, receipt in receipts.items():
        (Place.of(tmp_path) / gate.id / "receipts" / f"{n:05d}.json").write(json.dumps(receipt).encode())
    (shown,) = verbs.show(recipe, "gate-de", [f"root={tmp_path}"]).data
    assert (shown["state"], shown["rows"]) == ("going on", 2 * PART)
    assert [s["id"] for s in shown["rejected"]["gate: length"]["samples"]] == ["d0", "d1"]


def test_a_run_counts_what_gates_rejected_and_not_what_had_no_translation(recipe: str) -> None:
    plan, root = verbs.load_plan(recipe, [f"root={Path(recipe).parent / 'artifacts'}"])
    assert count_gated(plan, root) == {"gate-de": (8, ROWS)}
    assert count_gated(plan, root / "elsewhere") == {}


def test_lists_of_all_units_are_joined_and_thinned_out() -> None:
    facts = [{"samples": {"a": [[unit, "x"]], **({"b": [[unit, "y"]]} if unit == 7 else {})}} for unit in range(9)]
    assert merge_facts(facts) == {"samples": {"a": [[n, "x"] for n in (0, 2, 4, 6, 8)], "b": [[7, "y"]]}}
    assert take_spaced(range(3), EXAMPLES) == [0, 1, 2]
    assert take_spaced(range(100), 3) == [0, 49, 99]
    assert take_spaced(range(100), 1) == [0]
