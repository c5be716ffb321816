"""Texts of results: by value where they are short, by reference where a message cannot hold them."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.segments.parts import list_parts
from serving import generation
from serving.app import SHARD, describe
from serving.catalog import Catalog
from serving.generation import Generation
from serving.messages import Limits
from serving.shard import Shard
from serving_apps import make_words_system


class Handle:
    """A handle of a deployment, as Serve gives it, whose replica is in this process; counts the calls of each way."""

    def __init__(self, replica: Any, calls: dict[bool, int], by_reference: bool = True):
        self.replica, self.calls, self.by_reference = replica, calls, by_reference

    def options(self, _by_reference: bool) -> "Handle":
        return Handle(self.replica, self.calls, _by_reference)

    def __getattr__(self, method: str) -> Any:
        return SimpleNamespace(remote=self._call(getattr(self.replica, method)))

    def _call(self, method: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        async def call(*arguments: Any) -> Any:
            self.calls[self.by_reference] += 1
            return method(*arguments)

        return call


@pytest.mark.parametrize(("most", "expected"), [(1_000_000, {True: 0, False: 1}), (5, {True: 1, False: 1})])
def test_long_texts_are_read_by_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, expected: dict[bool, int]
) -> None:
    monkeypatch.setattr(generation, "BY_VALUE", most)
    served = make_words_system(tmp_path)
    calls = {True: 0, False: 0}
    handles = {
        f"{SHARD}{part.name}": Handle(Shard("f", (served.snapshot, part)), calls)
        for part in list_parts(served.snapshot)
    }
    catalog = Catalog("f", describe(served, Limits()), served.options, (), has_encoder=False)
    shown = Generation("babelray-f", catalog, handles, None)  # type: ignore[arg-type]
    name = "shard-fa-00000"
    ids = ["d0", "d1"]

    async def read() -> tuple[dict[str, Any], list[str]]:
        return await shown._read_texts({name: ids}, asyncio.get_running_loop().time() + 1e6, False)

    texts, missing = asyncio.run(read())
    docs = served.snapshot.open_docs("fa")
    assert texts == {name: [(docs.row(doc_id)["title"] or "", docs.row(doc_id)["text"]) for doc_id in ids]}
    assert (missing, calls) == ([], expected)
