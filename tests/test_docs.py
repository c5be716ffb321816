"""The documents can be followed: links lead to files and headings, commands are those that the command line takes.

A command is a line of a code block, fenced or indented, that calls ``babelray`` or ``python -m`` one of its packages.
It is parsed by the command line itself and not run; the recipe that it names must exist, and take its overrides.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
import typer

from pipelines.experiment.config import load_experiment
from pipelines.experiment.config import names as experiments
from pipelines.recipe import load, names
from serving.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAPERS = sorted((ROOT / "docs" / "papers").glob("*.md"))
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:(?<=\n)|^)(?:(?: {4}.*)?\n)+", re.MULTILINE)
CODE = re.compile(r"(?<![\w./-])(?:cluster|docs|pipelines|serving|tests)/[\w./{},-]*\w/?(?=[`\s,):])")
TO_WRITE = {"pipelines/scorers/mine.py"}  # by the reader
PACKAGES = ("cluster", "pipelines", "serving")
ENDS_A_COMMAND = ("|", ">", "&", ";", "&&")
COMMAND_LINE: Any = typer.main.get_command(app)


class Command(NamedTuple):
    """A command of a page: its verb and what stands behind it."""

    verb: str
    words: list[str]


def name_page(page: Path) -> str:
    return str(page.relative_to(ROOT))


# links


def find_headings(text: str) -> set[str]:
    """The anchors of a page, as GitHub makes them of its headings."""
    lines = FENCED.sub("", text).splitlines()
    titles = [line.lstrip("#").strip().lower() for line in lines if re.match(r"#{1,6} ", line)]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


def find_broken_links(page: Path, text: str) -> list[str]:
    """The links of a page that lead nowhere in this repository; those to other places are not followed."""
    broken = []
    for link in LINK.findall(FENCED.sub("", text)):
        file, _, heading = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if "://" in link or link.startswith("mailto:"):
            continue
        if not target.exists() or not target.is_relative_to(ROOT):
            broken.append(f"{link}: no such file")
        elif heading and heading not in find_headings(target.read_text("utf-8")):
            broken.append(f"{link}: no such heading")
    return broken


@pytest.mark.parametrize("page", PAGES, ids=name_page)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    assert not find_broken_links(page, page.read_text("utf-8"))


def test_a_link_that_leads_nowhere_is_found() -> None:
    page = ROOT / "docs" / "results.md"
    text = "[a](cost.md) [b](absent.md) [c](cost.md#what-it-costs) [d](cost.md#absent) [e](https://x.y) [f](#absent)"
    assert find_broken_links(page, text) == [
        "absent.md: no such file",
        "cost.md#absent: no such heading",
        "#absent: no such heading",
    ]


def find_absent_paths(text: str) -> list[str]:
    """The paths of this repository that a page names in code, a listing or a command, and that are not there."""
    named = [path for span in CODE.findall(text) for path in _expand(span)]
    return sorted({path for path in named if not (ROOT / path).exists()} - TO_WRITE)


def _expand(path: str) -> list[str]:
    """``a/{b,c}.py`` as two paths."""
    before, brace, rest = path.partition("{")
    if not brace:
        return [path]
    inside, _, after = rest.partition("}")
    return [f"{before}{name}{after}" for name in inside.split(",")]


@pytest.mark.parametrize("page", PAGES, ids=name_page)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    assert not find_absent_paths(page.read_text("utf-8"))


def test_a_file_that_is_not_there_is_found() -> None:
    text = "`tests/{conftest,absent}.py` `pipelines/plan/`\n\n    python tests/benchmarks/absent.py a\n"
    assert find_absent_paths(text) == ["tests/absent.py", "tests/benchmarks/absent.py"]


@pytest.mark.parametrize("page", PAGES, ids=name_page)
def test_targets_of_make_exist(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:`|^ {4}|; )make ([\w-]+)", page.read_text("utf-8"), re.MULTILINE))
    assert named <= targets


# commands


def find_commands(text: str) -> Iterator[Command]:
    """The commands of babelray in the code blocks of a page."""
    blocks = FENCED.findall(text) + INDENTED.findall(FENCED.sub("", text))
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        if any(word in line for word in ("babelray ", *(f"-m {package} " for package in PACKAGES))):
            yield from _split_command(line)


def _split_command(line: str) -> Iterator[Command]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|>&;")
    lexer.whitespace_split, lexer.commenters = True, "#"
    try:
        words = list(lexer)
    except ValueError:  # a line of a listing with an apostrophe, and no command
        return
    for at, word in enumerate(words):
        is_module = word in PACKAGES and words[at - 1 : at] == ["-m"]
        if is_module or word.rpartition("/")[2] == "babelray":
            end = next((n for n in range(at, len(words)) if words[n] in ENDS_A_COMMAND), len(words))
            verb, *rest = words[at + 1 : end] or [""]
            yield Command(verb, rest)
            return


def check_command(command: Command) -> None:
    """See that the command line takes a command, and that what it names exists. Raises what is wrong with it."""
    if command.verb.startswith("-"):
        return
    if command.verb not in COMMAND_LINE.commands:
        raise click.UsageError(f"no verb {command.verb!r}; expected one of {', '.join(COMMAND_LINE.commands)}")
    context = COMMAND_LINE.commands[command.verb].make_context(command.verb, list(command.words))
    if command.verb == "new":
        return
    sets = context.params.get("sets") or context.params.get("overrides") or []
    for name in _find_names(context.params):
        if name in names():
            load(name, sets)
        elif name in experiments():
            load(load_experiment(name).base, sets)
        elif not (name.endswith(".toml") or name.isupper()):
            raise click.UsageError(
                f"{name!r} is no recipe and no experiment, and no word in capitals that stands for one"
            )


def _find_names(params: dict[str, Any]) -> list[str]:
    """The recipes and experiments that a command names."""
    given = [params.get(name) or () for name in ("recipe", "name", "others", "recipes")]
    return [name for names in given for name in ([names] if isinstance(names, str) else names)]


@pytest.mark.parametrize("page", PAGES, ids=name_page)
def test_commands_are_those_of_the_command_line(page: Path) -> None:
    for command in find_commands(page.read_text("utf-8")):
        try:
            check_command(command)
        except Exception as error:
            raise AssertionError(f"babelray {command.verb} {shlex.join(command.words)}: {error}") from error


def test_commands_are_found_in_blocks_of_both_kinds() -> None:
    text = (
        "Text with babelray run none.\n\n    A=1 babelray plan atlas --set a=1 \\\n        --json > file   # why\n\n"
        "```\n.venv/bin/babelray status xquad\nray job submit -- python -m pipelines run atlas\n```\n"
    )
    assert list(find_commands(text)) == [
        Command("status", ["xquad"]),
        Command("run", ["atlas"]),
        Command("plan", ["atlas", "--set", "a=1", "--json"]),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("babelray forget atlas", "no verb 'forget'"),
        ("babelray run atlas --fast", "No such option"),
        ("babelray evaluate", "Missing parameter: recipe"),
        ("babelray run atlantis", "is no recipe"),
        ("babelray run atlas --set train.step=1", "unknown key train.step"),
    ],
)
def test_a_command_that_cannot_be_typed_is_found(line: str, message: str) -> None:
    (command,) = find_commands(f"\n    {line}\n")
    with pytest.raises(Exception, match=re.escape(message)):
        check_command(command)


# tables of overrides


def find_overrides(text: str) -> list[list[str]]:
    """The overrides in the tables of a page whose last column is headed ``--set``, row by row."""
    rows, is_inside = [], False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            is_inside = False
        elif cells[-1] == "`--set`":
            is_inside = True
        elif is_inside and not set(line) <= set("|- "):
            rows.append(_split_overrides(cells[-1].strip("`")))
    return rows


def _split_overrides(text: str) -> list[str]:
    """Divide at the spaces that stand in no brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[{") - (character in "]}")
        if character == " " and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return parts


@pytest.mark.parametrize("page", PAPERS, ids=name_page)
def test_overrides_of_a_paper_s_page_fit_its_recipe(page: Path) -> None:
    text = page.read_text("utf-8")
    if not (rows := find_overrides(text)):
        return
    recipe, *options = next(command.words for command in find_commands(text) if command.verb == "status")
    given = [value for option, value in zip(options, options[1:], strict=False) if option == "--set"]
    for overrides in rows:
        load(recipe, [*given, *overrides])


def test_overrides_are_divided_outside_of_brackets() -> None:
    text = (
        '| what | `--set` |\n|---|---|\n| a | `a.b={c="d", e=[1, 2]} f=g` |\n\n| x | y |\n|---|---|\n| `h=i` | `j` |\n'
    )
    assert find_overrides(text) == [['a.b={c="d", e=[1, 2]}', "f=g"]]


def test_every_paper_has_a_page_and_its_page_a_recipe() -> None:
    index = (ROOT / "docs" / "papers" / "README.md").read_text("utf-8")
    linked = {link for link in LINK.findall(index) if not link.startswith((".", "http"))}
    assert linked == {page.name for page in PAPERS} - {"README.md"}
    for page in PAPERS:
        assert any(command.words[:1] for command in find_commands(page.read_text("utf-8"))) or page.name == "README.md"
