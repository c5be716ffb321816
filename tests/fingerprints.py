"""What must not change in silence: versions, defaults and code of everything that a fingerprint stands for.

A fingerprint covers configs and versions, not code. So ``tests/fingerprints.json`` keeps, beside every version,

* the defaults of every component that a step's config may hold (defaults are left out of fingerprints);
* for every module of ``pipelines`` that a work or such a component imports, at any distance and also inside functions,
  the hash of its syntax tree. Comments, docstrings and the texts of raised errors do not count.

``test_fingerprints.py`` compares. A changed default asks for a raised version of its component; a changed module for a
raised version of at least one of the works and components that import it, or for a word that results stay the same:

    python tests/fingerprints.py                                     what has changed, and what to do
    python tests/fingerprints.py --write                             after versions were raised
    python tests/fingerprints.py --write --no-effect NAME "why"      NAME: a module, or a class in it; may be repeated
    rm tests/fingerprints.json; python tests/fingerprints.py --write take everything as it is

Modules of ``cluster`` are not watched: they move rows and bytes and know nothing of what is in them.
"""

import argparse
import ast
import hashlib
import importlib
import inspect
import json
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_type_hints

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "fingerprints.json"
WORK_PARAMETERS = (["config", "inputs"], ["config", "inputs", "out", "fan_out"])  # of a class, of a function
NEAR = 6  # names in a message


@dataclass
class Snapshot:
    """What a checkout holds, or what the golden file says that it held."""

    modules: dict[str, str]  # hash of each syntax tree
    components: dict[str, dict[str, Any]]  # version and defaults
    works: dict[str, dict[str, Any]]  # version
    no_effect: dict[str, str] = field(default_factory=dict)  # module → why its last change has none

    @classmethod
    def read(cls, file: Path) -> "Snapshot":
        """The golden file; where there is none, everything is new."""
        return cls(**json.loads(file.read_text("utf-8"))) if file.exists() else cls({}, {}, {})

    def write(self, file: Path) -> None:
        """Write the golden file, sorted: one line per module, so that branches merge."""
        file.write_text(json.dumps(vars(self), indent=1, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")

    def version(self, name: str) -> int:
        """The version of a component or work; 0 where it is unknown."""
        return int({**self.components, **self.works}.get(name, {}).get("version", 0))


@dataclass
class Checkout:
    """The code as it is: its snapshot, and which names depend on which modules, the nearest first."""

    now: Snapshot
    dependents: dict[str, list[str]]
    homes: dict[str, str]  # component or work → module

    @classmethod
    def read(cls, root: Path) -> "Checkout":
        """Import the plans, which import every work and component that can be in one, and hash their modules."""
        importlib.import_module("pipelines.plan.calibration")  # of a verb alone; imports pipelines.plan
        works = find_works()
        components = find_components(works)
        sources = {module_name(root, path): path for path in sorted((root / "pipelines").rglob("*.py"))}
        trees = {name: ast.parse(path.read_text("utf-8")) for name, path in sources.items()}
        graph = {name: imported_modules(tree, trees) for name, tree in trees.items()}
        homes = {name: thing.__module__ for name, thing in {**components, **works}.items()}
        near = {name: distances(home, graph) for name, home in homes.items()}
        modules = sorted(set().union(*near.values()))
        dependents = {
            module: sorted((name for name in near if module in near[name]), key=lambda n, m=module: (near[n][m], n))
            for module in modules
        }
        from cluster.component import defaults

        snapshot = Snapshot(
            modules={name: tree_hash(trees[name]) for name in modules},
            components={
                name: {"version": kind.version, "defaults": defaults(kind)} for name, kind in components.items()
            },
            works={name: {"version": getattr(work, "version", 1)} for name, work in works.items()},
        )
        return cls(snapshot, dependents, homes)


def find_works() -> dict[str, Any]:
    """Every class and function of ``pipelines`` with the parameters of a work, by name.

    Raises:
        ValueError: two have one name. A fingerprint holds the name without the module, so they would be taken for one.
    """
    loaded = [module for name, module in sorted(sys.modules.items()) if name.startswith("pipelines.") and module]
    works: dict[str, Any] = {}
    for work in (thing for m in loaded for thing in vars(m).values() if is_work(thing, m.__name__)):
        if (other := works.setdefault(work.__name__, work)) is not work:
            raise ValueError(f"{other.__module__} and {work.__module__} both have a work {work.__name__}: rename one")
    return works


def is_work(thing: Any, module: str) -> bool:
    """Whether this is a work that the module defines: a step may run it."""
    if getattr(thing, "__module__", None) != module or thing.__name__.startswith("_"):
        return False
    if inspect.isclass(thing):
        is_called = any("__call__" in vars(kind) for kind in thing.__mro__)
        return is_called and list(inspect.signature(thing.__init__).parameters)[1:] == WORK_PARAMETERS[0]
    return inspect.isfunction(thing) and list(inspect.signature(thing).parameters) == WORK_PARAMETERS[1]


def find_components(works: dict[str, Any]) -> dict[str, Any]:
    """Every component that a work's config is or may hold, subclasses of what is declared included, by full name."""
    configs = [get_type_hints(w.__init__ if inspect.isclass(w) else w)["config"] for w in works.values()]
    from cluster.component import Component

    found: dict[type, None] = {}
    left = deque(config for config in configs if inspect.isclass(config) and issubclass(config, Component))
    while left:
        kind = left.popleft()
        if kind in found:
            continue
        found[kind] = None
        left.extend(c for f in kind.model_fields.values() for c in components_in(f.annotation))
        left.extend(c for c in kind.__subclasses__() if c.__module__.startswith("pipelines."))
    return {f"{kind.__module__}.{kind.__name__}": kind for kind in found}


def components_in(annotation: Any) -> Iterator[type]:
    """The component classes in a type: those of unions, tuples, mappings."""
    from cluster.component import LEFT_OUT, Component

    if inspect.isclass(annotation) and issubclass(annotation, Component) and not issubclass(annotation, LEFT_OUT):
        yield annotation
    for argument in get_args(annotation):
        yield from components_in(argument)


def module_name(root: Path, path: Path) -> str:
    """``pipelines.indexes`` for pipelines/indexes/__init__.py."""
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def imported_modules(tree: ast.AST, known: Iterable[str]) -> set[str]:
    """The known modules that a module imports, also inside functions, but not for type checking alone."""
    typing_only = {
        node
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for node in ast.walk(branch)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names & set(known)


def distances(home: str, graph: dict[str, set[str]]) -> dict[str, int]:
    """How many imports lie between a module and each that it depends on."""
    steps, left = {home: 0}, deque([home])
    while left:
        module = left.popleft()
        for child in sorted(graph[module] - set(steps)):
            steps[child] = steps[module] + 1
            left.append(child)
    return steps


def tree_hash(tree: ast.AST) -> str:
    """12 hex digits of a syntax tree without docstrings and the texts of errors."""
    return hashlib.sha256(json.dumps(_bare(tree)).encode()).hexdigest()[:12]


def _bare(node: Any) -> Any:
    if isinstance(node, list):
        return [_bare(item) for item in node]
    if not isinstance(node, ast.AST):
        return node if isinstance(node, (str, int, bool)) else repr(node)
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        return ["Raise", _bare(node.exc.func)]
    kept = dict(ast.iter_fields(node))
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and ast.get_docstring(node):
        kept["body"] = kept["body"][1:]
    # versions of Python differ in which empty fields a node has; ``kind`` is the u of u"text"
    return [type(node).__name__, {k: _bare(v) for k, v in kept.items() if v is not None and v != [] and k != "kind"}]


def find_changes(golden: Snapshot, checkout: Checkout, no_effect: Iterable[str] = ()) -> tuple[list[str], list[str]]:
    """Changes that need a decision, and those that only need ``--write``."""
    now, excused = checkout.now, {checkout.homes.get(name, name) for name in no_effect}
    raised = {name for name in [*now.components, *now.works] if now.version(name) > golden.version(name)}
    decide = [
        _say_default(name, key, golden.components[name]["defaults"][key], value)
        for name, component in now.components.items()
        if name in golden.components and name not in raised and checkout.homes[name] not in excused
        for key, value in component["defaults"].items()
        if golden.components[name]["defaults"].get(key, value) != value
    ]
    for module, digest in now.modules.items():
        changed = golden.modules.get(module, digest) != digest
        if changed and module not in excused and not raised & set(checkout.dependents[module]):
            decide.append(_say_module(module, checkout))
    lowered = {name for name in [*now.components, *now.works] if now.version(name) < golden.version(name)}
    decide += [
        f"{name}: version {now.version(name)} is below {golden.version(name)}: only raise it" for name in lowered
    ]
    kinds = ("modules", "components", "works")
    stale = [k for k in kinds if getattr(golden, k) != getattr(now, k)]
    return decide, [f"{GOLDEN.name} is not up to date ({', '.join(stale)}): run {COMMAND}"] if stale else []


COMMAND = "python tests/fingerprints.py --write"


def _say_default(name: str, key: str, before: Any, after: Any) -> str:
    return (
        f"{name}.{key}: the default was {before!r} and is {after!r}. Defaults are left out of fingerprints, so old "
        f"artifacts would be taken for new ones.\n"
        f"  Raise `version: ClassVar[int]` in {name}, then run {COMMAND}"
    )


def _say_module(module: str, checkout: Checkout) -> str:
    names = checkout.dependents[module]
    more = f" and {len(names) - NEAR} more" if len(names) > NEAR else ""
    first = names[0]
    where = f"`version` of {checkout.homes[first]}.{first}"
    if first in checkout.now.components:
        where = f"`version: ClassVar[int]` in {first}"
    return (
        f"{module} has changed. On it depend {', '.join(names[:NEAR])}{more}.\n"
        f"  Where results change at equal config, raise {where}, or of whichever of them give others, "
        f"and run {COMMAND}\n"
        f'  Where none do: {COMMAND} --no-effect {module} "why"'
    )


def main() -> int:
    """Compare, and write when asked and allowed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the golden file, unless a change needs a decision")
    parser.add_argument("--no-effect", nargs=2, action="append", default=[], metavar=("NAME", "WHY"))
    options = parser.parse_args()
    golden, checkout = Snapshot.read(GOLDEN), Checkout.read(ROOT)
    known = {*checkout.now.modules, *checkout.homes}
    if unknown := [name for name, _ in options.no_effect if name not in known]:
        parser.error(f"--no-effect {unknown[0]}: expected one of the modules, components and works in {GOLDEN.name}")
    decide, stale = find_changes(golden, checkout, [name for name, _ in options.no_effect])
    if options.write and not decide:
        notes = {checkout.homes.get(name, name): why for name, why in options.no_effect}
        kept = {m: why for m, why in golden.no_effect.items() if golden.modules.get(m) == checkout.now.modules.get(m)}
        checkout.now.no_effect = kept | notes
        checkout.now.write(GOLDEN)
        return 0
    print("\n".join([*decide, *stale]) or "nothing has changed")
    return 1 if decide or stale else 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
