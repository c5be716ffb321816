"""Fusion: the rankings that several systems give one question become one. Evaluation and the server share it.

    ranks   score(d) = sum over the systems of  weight / (k + rank of d)      reciprocal rank fusion
    scores  score(d) = sum of  weight · (s(d) - least) / (greatest - least)  divided by the sum of the weights

What a system did not find adds nothing. Ranks begin at 1, in the order that the system gave. With several languages a
rank is that in the ranking of all languages, since a rank in each language would make the best document of each equal.
Reciprocal rank fusion is that of Cormack, Clarke and Büttcher (SIGIR 2009), who take k = 60. It needs no scale; scores
say how far apart documents are. Of a ranking whose scores are all equal, each counts as the greatest.

Cost: one sort of the documents found.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field

from cluster.component import Component
from pipelines.weights import Weights

LEARN = "learn"
Name = TypeVar("Name", str, tuple[str, str])  # of a document; names are compared where scores are equal


class Fusion(Component):
    """How rankings are fused: see the module. ``weights`` has one for each system (None: equal ones)."""

    kind: Literal["ranks", "scores"] = "ranks"
    k: float = Field(60, gt=0)
    weights: Weights = None

    def check_count(self, systems: Sequence[str]) -> None:
        """Raise ValueError where there are weights for another number of systems."""
        if self.weights is not None and len(self.weights) != len(systems):
            raise ValueError(
                f"weights = {list(self.weights)}: expected {len(systems)}, one for each of {', '.join(systems)}"
            )


def _take_learnt(value: Any) -> Any:
    """``weights = "learn"`` stands for no weights until they are learnt."""
    if isinstance(value, Mapping) and value.get("weights") == LEARN:
        return {**value, "weights": None, "learn": True}
    return value


class LearntFusion(Fusion):
    """A fusion whose ``weights`` may be "learn": those of a grid that rank the dev questions best."""

    learn: bool = False


AnyFusion = Annotated[LearntFusion, BeforeValidator(_take_learnt)]


class Hybrid(Fusion):
    """How the server fuses what the student finds with what an index of words finds.

    ``system``  the recipe's system with an index of words
    ``like``    take kind, k and weights of this system of the recipe, which fuses the two; learnt weights too
    ``depth``   how many documents of each are fused
    ``default`` whether a search that does not say is fused, which is worth an evaluation first
    """

    system: str = "bm25"
    like: str = ""
    depth: int = Field(100, ge=1, le=1000)
    default: bool = False


def fuse(rankings: Sequence[Sequence[tuple[Name, float]]], fusion: Fusion) -> list[tuple[Name, float]]:
    """Fuse rankings of (document, score), best first each, into one: scores falling, ties by name."""
    fused: defaultdict[Name, float] = defaultdict(float)
    weights = fusion.weights or (1.0,) * len(rankings)
    for weight, ranking in zip(weights, rankings, strict=True):
        for name, part in zip((name for name, _ in ranking), _parts(ranking, fusion), strict=True):
            fused[name] += weight * part
    total = sum(weights) if fusion.kind == "scores" else 1.0
    return sorted(((name, score / total) for name, score in fused.items()), key=lambda hit: (-hit[1], hit[0]))


def _parts(ranking: Sequence[tuple[Any, float]], fusion: Fusion) -> list[float]:
    """What each document of a ranking adds, before it is weighted."""
    if fusion.kind == "ranks":
        return [1 / (fusion.k + rank) for rank in range(1, len(ranking) + 1)]
    scores = [score for _, score in ranking]
    least, greatest = min(scores, default=0.0), max(scores, default=0.0)
    return [(score - least) / (greatest - least) if greatest > least else 1.0 for score in scores]
