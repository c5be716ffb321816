"""Divides the facts into train, dev and test: new facts about names that occur in training passages.

The facts of a group share a split. Groups are visited in a pseudo-random order drawn from the seed; a group leaves
training only if each name in it still occurs in MIN_TRAINING_PASSAGES training passages. Most names do occur in facts
of other kinds, so this rule excludes few groups: about 15 % of the facts become test and 8 % dev.
"""

from collections import Counter

from pipelines.sources.atlas.facts import Fact, draw

SPLITS = ("train", "dev", "test")
MIN_TRAINING_PASSAGES = 3  # per language, with each name of a dev or test fact
MAX_GROUP = 6  # facts; larger groups stay in training, so that no split consists of one chain of facts
SHARES = {"test": 0.15, "dev": 0.08}


def split_facts(found: list[Fact], seed: int) -> dict[str, str]:
    """Assign a split to each fact. Returns the split by doc_id."""
    groups: dict[str, list[Fact]] = {}
    for fact in found:
        groups.setdefault(fact.group, []).append(fact)
    order = sorted(groups.values(), key=lambda group: draw(seed, "group", group[0].group))
    remaining = Counter(name for fact in found for name in set(fact.list_names()))
    assigned: dict[str, str] = {}
    for split, share in SHARES.items():
        quota = round(share * len(found))
        for group in order:
            if quota < len(group) or group[0].doc_id in assigned or len(group) > MAX_GROUP:
                continue
            count = Counter(name for fact in group for name in set(fact.list_names()))
            if _can_leave_training(count, remaining):
                remaining -= count
                quota -= len(group)
                assigned |= {fact.doc_id: split for fact in group}
    return {fact.doc_id: assigned.get(fact.doc_id, "train") for fact in found}


def _can_leave_training(count: Counter[str], remaining: Counter[str]) -> bool:
    """Whether every name of a group occurs in enough of the ``remaining`` passages without this group's ``count``."""
    return all(remaining[name] - used >= MIN_TRAINING_PASSAGES for name, used in count.items())
