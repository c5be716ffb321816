"""A missing key of an endpoint is told before anything of a run begins."""

from pathlib import Path

import pytest

from cluster.errors import RecipeError
from pipelines import verbs
from pipelines.keys import check_keys, find_lacking_keys
from pipelines.plan import plan
from pipelines.recipe import load
from test_plan import write
from test_recipe import parallel

STAGES = """
extends = "xquad"
[[translate]]
kind = "parallel"
[[translate]]
kind = "openai"
url = "http://127.0.0.1:9/v1"
model = "m"
api_key_env = "TEST_KEY"
"""
IN_ENVIRONMENT = """
[resources]
translate = { environment = "asks" }
[environments.asks]
env_vars = { TEST_KEY = "secret" }
"""


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_KEY", raising=False)


def test_a_run_without_the_key_names_the_variable_and_makes_nothing(tmp_path: Path) -> None:
    recipe = write(tmp_path, "asks", STAGES)
    root = tmp_path / "root"
    sets = [*parallel(tmp_path), f"root={root}"]
    with pytest.raises(RecipeError, match=r"step translate-\w+-2: api_key_env = 'TEST_KEY'.*export TEST_KEY="):
        verbs.run(recipe, [], sets, None)
    assert not root.exists()
    assert verbs.status(recipe, sets).data, "a plan is shown without the key"


def test_a_key_is_found_here_or_in_the_environment_of_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = parallel(tmp_path)
    made = plan(load(write(tmp_path, "asks", STAGES), sets))
    assert set(find_lacking_keys(made.steps, {}).values()) == {"TEST_KEY"}
    given = plan(load(write(tmp_path, "given", STAGES + IN_ENVIRONMENT), sets))
    assert not find_lacking_keys(given.steps, given.recipe.environments)
    monkeypatch.setenv("TEST_KEY", "secret")
    assert not find_lacking_keys(made.steps, {})


def test_steps_that_are_done_or_not_wanted_need_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the English originals alone nothing is translated, so nothing is asked."""
    recipe = write(tmp_path, "asks", STAGES)
    made = plan(load(recipe, parallel(tmp_path)))
    lacking = find_lacking_keys(made.steps, {})
    originals = [step for step in made.steps if step.name in ("docs-en", "queries-en")]
    check_keys(originals, lacking)
    with pytest.raises(RecipeError, match="TEST_KEY"):
        check_keys([*originals, *(step for step in made.steps if step.id in lacking)], lacking)
