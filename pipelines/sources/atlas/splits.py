"""Which facts are train, dev and test: unseen facts about names that training has seen often enough.

Facts that give each other away form a group and share a split. Groups are visited in an order drawn from the seed; a
group is taken out of training only if each name in it keeps ``NAMES_KEPT`` training passages. A name lives on in
facts of other kinds, so the guarantee costs little: about 15 % of the facts become test and 8 % dev.
"""

from collections import Counter
from collections.abc import Iterable

from pipelines.sources.atlas.facts import Fact, draw

SPLITS = ("train", "dev", "test")
NAMES_KEPT = 3  # training passages per language in which each name of a dev or test fact occurs, at the least
LARGEST_GROUP = 6  # larger groups stay in training, so that no split is made of one chain of facts
SHARES = {"test": 0.15, "dev": 0.08}


def split_facts(found: list[Fact], seed: int) -> dict[str, str]:
    """Map each doc_id to its split."""
    groups: dict[str, list[Fact]] = {}
    for fact in found:
        groups.setdefault(fact.group, []).append(fact)
    order = sorted(groups.values(), key=lambda group: draw(seed, "group", group[0].group))
    left = Counter(name for fact in found for name in set(fact.names()))
    taken: dict[str, str] = {}
    for split, share in SHARES.items():
        wanted = round(share * len(found))
        for group in order:
            if wanted < len(group) or group[0].doc_id in taken or len(group) > LARGEST_GROUP:
                continue
            cost = Counter(name for fact in group for name in set(fact.names()))
            if _names_survive(cost, left):
                left -= cost
                wanted -= len(group)
                taken |= {fact.doc_id: split for fact in group}
    return {fact.doc_id: taken.get(fact.doc_id, "train") for fact in found}


def _names_survive(cost: Counter[str], left: Counter[str]) -> bool:
    names: Iterable[tuple[str, int]] = cost.items()
    return all(left[name] - used >= NAMES_KEPT for name, used in names)
