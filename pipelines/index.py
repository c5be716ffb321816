"""The index step: plan shards, build what they share, build each on the cluster, list them in ``index.json``.

An index artifact holds the shards of all languages of a collection:

    index.json                     kind, dim, and for each shard its language, documents, bytes; where a recall is
                                   wanted, the depths by language that have it
    codec/, statistics/            what the shards share (by kind)
    shards/<lang>-<number>/        a shard; ``shard.json``, put last, says what it is

A shard is a run of consecutive parts of one language's table, about ``shard_rows`` documents. It is written to a
temporary directory of the node that builds it, then copied to its place, ``shard.json`` last: a killed build leaves no
shard that looks finished.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import Field

from cluster.component import Component, fingerprint
from cluster.errors import StepError, StorageError
from cluster.step import FanOut
from cluster.storage import Place
from pipelines.indexes import Index
from pipelines.indexes.base import ShardPlan
from pipelines.indexes.fast_plaid import FastPlaid
from pipelines.indexes.plaid import Plaid
from pipelines.indexes.plaid.tune import tune
from pipelines.ingest import ABSENT
from pipelines.sources.files import File


class IndexConfig(Component):
    """The kind of index, and the documents per shard: at most ``shard_rows``, or one part that has more.

    ``content`` identifies the files of an index that is read and not built; its path is in no fingerprint.
    """

    index: Index
    shard_rows: int = Field(100_000, ge=1)
    content: str = ""

    @classmethod
    def of(cls, index: Index, shard_rows: int) -> "IndexConfig":
        """Make the config. Where the files are not here, ``content`` begins with ``pipelines.ingest.ABSENT``: such a
        plan can be shown but not run."""
        if not isinstance(index, FastPlaid):
            return cls(index=index, shard_rows=shard_rows)
        place = Place(index.path)
        try:
            files = [[one.name, *File(f.name, f).digest()] for one in place.list() for f in one.list()]
            if not files:
                raise StorageError(f"index.path = {place.redacted!r}: expected a directory below it for each language")
            content = fingerprint(files)
        except StorageError as error:
            content = f"{ABSENT}{error}"
        return cls(index=index, shard_rows=shard_rows, content=content)


def build_index(config: IndexConfig, inputs: Mapping[str, Any], out: Place, fan_out: FanOut) -> dict[str, Any]:
    """Build the index of a collection (a DirectoryWork).

    ``inputs["vectors"]`` holds VECTORS by language, or ``inputs["docs"]`` DOCS for a lexical index or one that is read;
    ``inputs["questions"]``, where there is one, the VECTORS of questions by which a wanted recall is measured.
    """
    builder = config.index.build()
    plans = plan_shards(inputs, builder.role, config.shard_rows)
    shared = builder.prepare(plans, out, fan_out)
    arguments = {"index": config.index, "plans": plans, "out": out}
    shards = fan_out("index", BuildShard, arguments, list(range(len(plans))))
    facts = {"kind": config.index.kind, **shared, "docs": sum(s["docs"] for s in shards), "shards": shards}
    if isinstance(config.index, Plaid) and config.index.recall:
        questions = [place.uri for place in inputs["questions"].parts] if "questions" in inputs else []
        facts["levels"] = tune(config.index, plans, questions, out, fan_out)
    (out / "index.json").write(json.dumps(facts, indent=1).encode())
    (out / "postings").delete()
    return {**facts, "shards": len(shards), "bytes": sum(shard["bytes"] for shard in shards)}


def plan_shards(inputs: Mapping[str, Any], role: str, shard_rows: int) -> list[ShardPlan]:
    """Cut each language's parts into runs of about ``shard_rows`` rows, in order.

    Raises StepError when no input of ``role`` has a part.
    """
    plans: list[ShardPlan] = []
    for lang, artifact in sorted(inputs.get(role, {}).items()):
        runs: list[list[tuple[str, int]]] = []
        for place, part in zip(artifact.parts, artifact.manifest.parts, strict=True):
            if not runs or sum(rows for _, rows in runs[-1]) + part.rows > shard_rows:
                runs.append([])
            runs[-1].append((place.uri, part.rows))
        for number, run in enumerate(runs):
            parts, rows = zip(*run, strict=True)
            plans.append(ShardPlan(f"{lang}-{number:05d}", lang, parts, rows))
    if not plans:
        raise StepError(f"nothing to index: expected {role} by language, with rows, got {sorted(inputs)}")
    return plans


class BuildShard:
    """Builds one shard per call, on any node (a UnitWork)."""

    def __init__(self, index: Index, plans: list[ShardPlan], out: Place):
        self.index, self.plans, self.out = index, plans, out

    def __call__(self, unit: int) -> dict[str, Any]:
        """Build shard number ``unit``; return its entry in ``index.json``."""
        plan = self.plans[unit]
        place = self.out / "shards" / plan.name
        with TemporaryDirectory() as temp:
            directory = Path(temp)
            facts = self.index.build().write(plan, self.out, directory)
            size = sum(file.stat().st_size for file in directory.iterdir())
            facts = {"name": plan.name, "lang": plan.lang, **facts, "bytes": size}
            place.put(directory)
            (place / "shard.json").write(json.dumps({"index": self.index.model_dump(), **facts}).encode())
        return facts
