"""An index that fast-plaid has built, or an exported one, in the place of a built one.

    [index]
    kind = "fast_plaid"
    path = "DIR"          # with DIR/<lang>/, or DIR/<lang>-00000/, … as `babelray export` writes them

Documents are not encoded: codes and residuals are copied from its directories into shards of kind plaid, which are
searched as any other. The passages of each document are named by ``passages.tsv``. All
directories must have one codec, and their documents must be documents of the recipe; those that they lack are counted.
Cost: one pass over the directories for each shard of a language.
"""

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from cluster.artifact import read_part
from cluster.component import Component, Location
from cluster.errors import StepError
from cluster.step import FanOut
from cluster.storage import Place
from cluster.table import good
from pipelines.indexes.base import ShardPlan
from pipelines.indexes.files import DocsWriter, NpyAppender, blocks, offsets, ranges
from pipelines.indexes.plaid import Plaid
from pipelines.indexes.plaid.codec import FILES, Codec
from pipelines.indexes.plaid.foreign import FastPlaidIndex, read_fast_plaid
from pipelines.indexes.plaid.shard import CODES, RESIDUALS, choose_code_type, describe
from pipelines.vectors import IntArray, VectorRows

if TYPE_CHECKING:
    from pipelines.indexes.plaid.search import PlaidGroup

TOKENS = 1 << 18  # copied at a time
SHOWN = 5  # ids in an error


class FastPlaid(Component):
    """Config: where the directories are, a path or an ``s3://`` URI. What is in them is in the fingerprint."""

    version: ClassVar[int] = 1
    kind: Literal["fast_plaid"] = "fast_plaid"
    path: Location

    def build(self) -> "FastPlaidReader":
        """What copies it."""
        return FastPlaidReader(self)

    def open(self, directories: Sequence[Path], share: float = 1.0) -> "PlaidGroup":
        """Open its shards, which are of kind plaid."""
        return Plaid().open(directories, share)

    def find(self, lang: str) -> list[Place]:
        """The index directories of a language. Raises StepError when there is none."""
        place = Place(self.path)
        found = [one for one in place.list() if one.name == lang or one.name.removeprefix(f"{lang}-").isdigit()]
        if not found:
            raise StepError(
                f"{place.redacted} has no index of {lang}: expected {lang}/ or {lang}-00000/, … with fast-plaid's files"
            )
        return found


class FastPlaidReader:
    """Checks the directories and copies them to shards (a ``Builder``)."""

    role: Literal["docs"] = "docs"

    def __init__(self, config: FastPlaid):
        self.config = config

    def prepare(self, plans: Sequence[ShardPlan], out: Place, fan_out: FanOut) -> dict[str, Any]:
        """Check all directories on workers, a language each, and write their codec to ``codec/``."""
        langs = sorted({plan.lang for plan in plans})
        arguments = {"config": self.config, "plans": list(plans), "out": out}
        facts = fan_out("check", CheckLanguage, arguments, langs)
        codecs = {lang: fact["codec"] for lang, fact in zip(langs, facts, strict=True)}
        if any(codec != codecs[langs[0]] for codec in codecs.values()):
            raise StepError(f"the indexes of {', '.join(langs)} have different codecs: expected one, as of one build")
        missing = {lang: fact["missing"] for lang, fact in zip(langs, facts, strict=True) if fact["missing"]}
        same = {name: facts[0][name] for name in ("centroids", "dim", "bits")}
        return {"kind": "plaid", **same, "missing": missing}

    def write(self, plan: ShardPlan, out: Place, directory: Path) -> dict[str, Any]:
        """Write a shard of those documents of the plan that the directories have. See ``Builder.write``."""
        from pipelines.indexes.plaid.build import write_lists

        codec = Codec.load((out / "codec").fetch())
        codec.save(directory)
        cells, wanted = len(codec.centroids_CN), _read_ids([plan])
        with (
            DocsWriter(directory) as docs,
            NpyAppender(directory / CODES, choose_code_type(cells)) as codes,
            NpyAppender(directory / RESIDUALS, "|u1") as residuals,
        ):
            for place in self.config.find(plan.lang):
                index = read_fast_plaid(place.fetch())
                kept = np.flatnonzero([name in wanted for name in index.names])
                docs.append(_name_documents(index, kept))
                for tokens in _tokens_of(index, kept):
                    codes.append(index.codes_T.take(tokens))
                    residuals.append(index.residuals_TW.take(tokens))
        write_lists(directory, cells)
        settings = Plaid(bits=codec.bits, centroids=cells)
        return {**docs.facts, **describe(directory, Plaid.version), "index": settings.model_dump()}

    def merge(self, sources: Sequence[Path], kept: IntArray, directory: Path) -> dict[str, Any]:
        """See ``Builder.merge``."""
        return Plaid().build().merge(sources, kept, directory)


class CheckLanguage:
    """Reads and checks the directories of one language per call (a UnitWork)."""

    def __init__(self, config: FastPlaid, plans: list[ShardPlan], out: Place):
        self.config, self.plans, self.out = config, plans, out

    def __call__(self, unit: str) -> dict[str, Any]:
        """Check that the documents are the recipe's; write the codec; return what identifies it."""
        lang, langs = unit, sorted({plan.lang for plan in self.plans})
        known, seen = _read_ids([plan for plan in self.plans if plan.lang == lang]), set[str]()
        codecs: dict[bytes, Codec] = {}
        for place in self.config.find(lang):
            index = read_fast_plaid(place.fetch())
            names = dict.fromkeys(index.names)
            _refuse(place, [name for name in names if name not in known], "that the recipe lacks")
            _refuse(place, [name for name in names if name in seen], "that another directory has too")
            seen.update(names)
            with TemporaryDirectory() as temp:
                index.codec.save(Path(temp))
                content = b"".join((Path(temp) / f"{name}.npy").read_bytes() for name in FILES)
                codecs[blake2b(content).digest()] = index.codec
                if lang == langs[0]:
                    (self.out / "codec").put(Path(temp))
        if len(codecs) != 1:
            raise StepError(f"the indexes of {lang} have different codecs: expected one, as of one build")
        ((digest, codec),) = codecs.items()
        facts = {"centroids": len(codec.centroids_CN), "dim": codec.dim, "bits": codec.bits}
        return {**facts, "codec": digest.hex(), "missing": len(known) - len(seen)}


def _read_ids(plans: Sequence[ShardPlan]) -> set[str]:
    """The ids of the good documents of DOCS."""
    return {
        name for plan in plans for part in plan.parts for name in good(read_part(Place(part)))["doc_id"].to_pylist()
    }


def _refuse(place: Place, ids: Sequence[str], what: str) -> None:
    if ids:
        shown = ", ".join(ids[:SHOWN])
        raise StepError(f"{place.redacted} has {len(ids):,} documents {what}: {shown}; expected others in passages.tsv")


def _name_documents(index: FastPlaidIndex, kept: IntArray) -> VectorRows:
    """The documents of these passages, and the tokens of each passage; without vectors."""
    names = [index.names[passage] for passage in kept.tolist()]
    firsts = [i for i, name in enumerate(names) if i == 0 or name != names[i - 1]]
    ids = pa.array([names[i] for i in firsts], pa.large_string())
    passages_D = np.diff([*firsts, len(names)])
    return VectorRows(ids, passages_D, index.tokens_P[kept], np.zeros((0, index.codec.dim), np.float16))


def _tokens_of(index: FastPlaidIndex, kept: IntArray) -> Iterator[IntArray]:
    """The tokens of these passages, some at a time; first none, of which a writer of files learns their width."""
    starts, lengths = offsets(index.tokens_P)[kept], index.tokens_P[kept]
    yield np.zeros(0, np.int64)
    for first, last in blocks(offsets(lengths), TOKENS):
        yield ranges(starts[first:last], lengths[first:last])
