"""PLAID: a late-interaction index of centroids, residuals of 1, 2 or 4 bits per component, and inverted lists."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from cluster.component import Component
from pipelines.indexes.plaid.depth import Level

if TYPE_CHECKING:
    from pipelines.indexes.plaid.build import PlaidBuilder
    from pipelines.indexes.plaid.search import PlaidGroup


class Plaid(Component):
    """Config of a PLAID index.

    Attributes:
        bits: per component of a residual. The published MTD runs use 1; 2 keeps more of the exact ranking.
        centroids: None is 2^⌊log2(16·√tokens)⌋, the tokens being those of one shard of every language.
        kmeans_iterations: 4 as in PLAID; more changes little.
        buckets: of residual components: lloyd minimises the squared error, quantiles is the rule of the papers.
        sample_tokens: largest sample for k-means, in vectors (1 GiB of float16 at dim 128, and as much of bfloat16).
        seed: of the sample and of k-means.
        recall: part of the exact top documents that a search is to find. The default depth of the index is then one
            that does, found by trying (see ``pipelines.indexes.plaid.tune``). None takes the usual depth.
    """

    version: ClassVar[int] = 4  # cells by products in bfloat16
    kind: Literal["plaid"] = "plaid"
    bits: Literal[1, 2, 4] = 2
    centroids: int | None = Field(None, ge=1)
    kmeans_iterations: int = Field(4, ge=1)
    buckets: Literal["lloyd", "quantiles"] = "lloyd"
    sample_tokens: int = Field(1 << 22, ge=1)
    seed: int = Field(0, ge=0)
    recall: float | None = Field(None, gt=0, le=1)

    def build(self) -> "PlaidBuilder":
        """The builder."""
        from pipelines.indexes.plaid.build import PlaidBuilder

        return PlaidBuilder(self)

    def open(
        self, directories: Sequence[Path], share: float = 1.0, levels: Sequence[Mapping[str, Any]] = ()
    ) -> "PlaidGroup":
        """Open finished shards of one language, to be searched as one; ``levels`` are what was tried on the index."""
        from pipelines.indexes.plaid.search import PlaidGroup

        names = [field.name for field in fields(Level)]
        return PlaidGroup(
            directories, share, self.version, [Level(**{name: level[name] for name in names}) for level in levels]
        )
