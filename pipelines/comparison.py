"""The verb *evaluate*: the measures of a recipe, beside those of other recipes on the same evaluation sets."""

from collections.abc import Sequence
from typing import Any

from cluster.errors import RecipeError
from cluster.storage import Place
from pipelines.plan import Plan
from pipelines.verbs import Report, load_plan, make


def evaluate(name: str, others: Sequence[str], system: str, sets: Sequence[str], console: Any) -> Report:
    """Measure a recipe, making what is missing first. Its data are those of ``collect_results``.

    With one other recipe: the differences between the two, measure by measure. With several: the first measure of each
    with its interval, and the differences to the first.

    Raises:
        RecipeError: the recipe has no such system, or a recipe shares no evaluation set with the first.
    """
    plan, root = load_plan(name, sets)
    if system not in {s for _, s in plan.measured}:
        raise RecipeError(f"no system {system!r}; expected one of {sorted({s for _, s in plan.measured})}")
    if others:
        return _compare([name, *others], system, sets, console)
    make(plan, [*plan.measured.values(), *plan.matrices.values()], root, console)
    from rich.console import Group

    return Report(collect_results(plan, root, system), Group(*build_pages(plan, root, system)))


def collect_results(plan: Plan, root: Place, system: str) -> dict[str, dict[str, Any]]:
    """What is measured of one system, by evaluation set.

    ``measures`` is language or "all" → measure → value, ``fairness`` how the pool treats each language (see
    ``pipelines.fairness``); of sentence pairs, ``intervals`` are those of the measures. A set that is asked in several
    languages is one set for each, and beside them stands, under its own name, ``matrix``: measure → language of the
    question → language of the documents or "all" → value.
    """
    from pipelines.correlate import read_intervals
    from pipelines.evaluate import read_fairness, read_measures
    from pipelines.matrix import read_matrix

    results: dict[str, dict[str, Any]] = {}
    for (set_name, of), step in plan.evaluations.items():
        if of == system:
            artifact = step.artifact(root)
            results[set_name] = {"measures": read_measures(artifact), "fairness": read_fairness(artifact)}
    for (set_name, of), step in plan.correlations.items():
        if of == system:
            artifact = step.artifact(root)
            results[set_name] = {"measures": read_measures(artifact), "intervals": read_intervals(artifact)}
    for (set_name, of), step in plan.matrices.items():
        if of == system:
            results[set_name] = {"matrix": read_matrix(step.artifact(root))["measures"]}
    return results


def build_pages(plan: Plan, root: Place, system: str) -> list[Any]:
    """The results of each evaluation set: measures, and how its pools treat each language; of a set that is asked in
    several languages, and of sentence pairs, the matrix of one system."""
    from pipelines import language_pages, report
    from pipelines.correlate import read_intervals
    from pipelines.evaluate import read_fairness
    from pipelines.matrix import read_matrix

    pages: list[Any] = []
    for name, systems in read_all_measures(plan, root).items():
        if name in plan.pairs:
            intervals = {of: read_intervals(plan.correlations[name, of].artifact(root)) for of in systems}
            pages.append(language_pages.correlation_page(name, systems, intervals, system))
        elif plan.collections[name].of == name:
            fairness = {of: read_fairness(plan.evaluations[name, of].artifact(root)) for of in systems}
            pages += [report.measures_page(name, systems), language_pages.fairness_page(name, fairness)]
    matrices: dict[str, dict[str, Any]] = {}
    for (name, of), step in plan.matrices.items():
        matrices.setdefault(name, {})[of] = read_matrix(step.artifact(root))
    return pages + [language_pages.questions_page(name, systems, system) for name, systems in matrices.items()]


def _compare(names: Sequence[str], system: str, sets: Sequence[str], console: Any) -> Report:
    from rich.console import Group

    from pipelines import report
    from pipelines.significance import compare, compare_systems

    plans = {name: load_plan(name, sets) for name in names}
    data: dict[str, Any] = {}
    pages = []
    for set_name in _find_shared_sets(plans, system):
        directories = {}
        for name, (plan, root) in plans.items():
            step = plan.measured[set_name, system]
            make(plan, [step], root, console)
            directories[name] = step.artifact(root).directory()
        if len(names) == 2:
            first, second = names
            rows = compare(directories[first], directories[second])
            data[set_name] = [row.model_dump(mode="json") for row in rows]
            pages.append(report.comparison_page(set_name, first, second, rows))
        else:
            results = compare_systems(directories)
            data[set_name] = [result.model_dump(mode="json") for result in results]
            pages.append(report.systems_page(set_name, results))
    return Report(data, Group(*pages))


def _find_shared_sets(plans: dict[str, tuple[Plan, Place]], system: str) -> list[str]:
    """The evaluation sets on which every plan measures the system, in the order of the first plan."""
    (first, (plan, _)), *others = plans.items()
    shared = [set_name for set_name, of in plan.measured if of == system]
    for name, (other, _) in others:
        if not any((set_name, system) in other.measured for set_name in shared):
            sets = (sorted({*one.collections, *one.pairs}) for one in (plan, other))
            raise RecipeError(f"{first} and {name} share no evaluation set: they have {' and '.join(map(str, sets))}")
        shared = [set_name for set_name in shared if (set_name, system) in other.measured]
    return shared


def read_all_measures(plan: Plan, root: Place) -> dict[str, dict[str, Any]]:
    """Set → system → language → measure → value."""
    from pipelines.evaluate import read_measures

    found: dict[str, dict[str, Any]] = {}
    for (set_name, system), step in plan.measured.items():
        found.setdefault(set_name, {})[system] = read_measures(step.artifact(root))
    return found
