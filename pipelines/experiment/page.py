"""The page of an experiment: one HTML file that needs no network, for a screen, a phone and paper.

On top stand the claims and what became of them, in words; then the differences, the means, the grid, the learning
curves, every number of every comparison, what the tests could have found, how it was done, and the commands that repeat
it. Names are escaped; there is no script.
"""

from importlib.resources import files

from pipelines.experiment import sections
from pipelines.experiment.markup import Html, element, join
from pipelines.experiment.results import ExperimentResult

POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # whatever a name may hold, nothing is loaded


def write_page(result: ExperimentResult) -> str:
    """The page as HTML."""
    style = Html((files("pipelines.experiment") / "page.css").read_text(encoding="utf-8"))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("title", f"{result.name}: an experiment"),
        element("style", style),
    )
    parts = [
        _section("Claims", sections.show_claims(result)),
        _section("Differences", sections.show_differences(result)),
        _section("Means", sections.show_means(result)),
        _section("Grid", sections.show_grid(result)),
        _section("Learning curves", sections.show_curves(result)),
        _section("Every comparison", sections.show_comparisons(result)),
        _section("What could have been found", sections.show_power(result)),
        _section("Method", sections.show_method(result)),
        _section("To repeat it", sections.show_commands(result)),
    ]
    about = [element("p", result.about)] if result.about else []
    header = element(
        "header", element("h1", result.name), about, element("p", sections.describe(result), class_="quiet")
    )
    return (
        "<!DOCTYPE html>\n" + element("html", head, element("body", header, element("main", parts)), lang="en") + "\n"
    )


def _section(title: str, content: Html) -> Html:
    """A section, or nothing where it would be empty."""
    return element("section", element("h2", title), content) if content else join()
