"""What one step of a plan handles, in numbers that the others are derived from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cluster.step import Step
from pipelines.costs.sizes import Size


@dataclass(frozen=True)
class Amount:
    """What one step handles.

    Attributes:
        rows: of the table that it writes, or that a directory is made of.
        files: parts of its table.
        tasks: units of work that may run side by side, each on one actor.
        units: what the time is proportional to; ``unit`` names them.
        tokens, bytes: mean of a row's text; of VECTORS the vectors of a row and their bytes.
        read, written: tokens that a model reads and writes, all rows together.
        depth: documents of a ranking.
        extra: numbers that only some steps have: centroids, groups, stops.
        good: share of the rows that hold something. The others were left out before, beyond ``synthesis.passages`` or
            ``synthesis.most``: rows that cost nothing.
    """

    rows: int = 0
    files: int = 0
    tasks: int = 1
    units: float = 0.0
    unit: str = "rows"
    tokens: float = 0.0
    bytes: float = 0.0
    read: float = 0.0
    written: float = 0.0
    depth: int = 0
    extra: Mapping[str, float] = field(default_factory=dict)
    good: float = 1.0

    @property
    def good_rows(self) -> float:
        """Those that hold something."""
        return self.rows * self.good

    @property
    def serial(self) -> float:
        """The part of the work that one actor does."""
        return self.extra.get("serial", 0.0)


SizeOf = Callable[[Step], Size]
Amounts = dict[str, Amount]
