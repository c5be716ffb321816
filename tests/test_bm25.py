"""BM25: the formula, the peer library, and the statistics that shards share."""

import math
from collections import Counter
from pathlib import Path

import bm25s
import numpy as np
import pytest

from pipelines.indexes.bm25 import Bm25
from pipelines.tokenize import load_analyser
from tests.shards import build, docs_artifact, find

WORDS = ["the", "a", "of", "river", "bank", "money", "loan", "fish", "boat", "market", "3", "7", "stone", "bridge"]


def texts(count: int, seed: int = 0) -> dict[str, str]:
    rng = np.random.default_rng(seed)
    return {f"t{i:03d}": " ".join(rng.choice(WORDS, rng.integers(1, 30))) for i in range(count)}


def test_bm25_shards_change_no_score(tmp_path: Path) -> None:
    collection = texts(60)
    queries = ["river bank", "3 fish", "money money loan", "absent", ""]
    whole, cut = (
        find(
            build(
                tmp_path / f"i{p}", Bm25(), {"docs": {"en": docs_artifact(tmp_path / f"d{p}", collection, "en", p)}}, r
            ),
            queries,
            k=60,
        )
        for p, r in ((1, 100), (6, 10))
    )
    assert whole == cut
    assert whole[3] == whole[4] == []


def test_bm25_is_bm25s(tmp_path: Path) -> None:
    collection = texts(80)
    place = build(
        tmp_path / "i", Bm25(k1=1.2, b=0.6), {"docs": {"en": docs_artifact(tmp_path / "d", collection, "en", 3)}}, 30
    )
    analyse = load_analyser("en")
    peer = bm25s.BM25(method="lucene", k1=1.2, b=0.6)
    peer.index([analyse(text) for text in collection.values()], show_progress=False)
    for query in ("river bank", "stone bridge 7", "the market of money", "fish fish boat"):
        scores = peer.get_scores(analyse(query))
        truth = {name: score for name, score in zip(collection, scores.tolist(), strict=True) if score > 0}
        (found,) = find(place, [query], k=100)
        assert dict(found) == pytest.approx(truth, rel=1e-5)
        assert found == sorted(found, key=lambda hit: (-hit[1], hit[0]))


def test_bm25_formula_by_hand(tmp_path: Path) -> None:
    collection = {"a": "river river bank", "b": "bank", "c": "boat on a river of stone"}
    place = build(tmp_path / "i", Bm25(), {"docs": {"en": docs_artifact(tmp_path / "d", collection, "en")}})
    average = (3 + 1 + 6) / 3
    idf = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    truth = {
        name: idf * tf / (tf + 0.9 * (1 - 0.4 + 0.4 * len(collection[name].split()) / average))
        for name, tf in {n: Counter(t.split())["river"] for n, t in collection.items()}.items()
        if tf
    }
    assert dict(find(place, ["River?"])[0]) == pytest.approx(truth, rel=1e-6)


def test_bm25_counts_each_language_by_itself(tmp_path: Path) -> None:
    english, german = {"e1": "bank river", "e2": "bank"}, {"g1": "Bank am Fluss", "g2": "Haus", "g3": "Boot"}
    docs = {
        "en": docs_artifact(tmp_path / "en", english, "en"),
        "de": docs_artifact(tmp_path / "de", german, "de"),
    }
    both = build(tmp_path / "both", Bm25(), {"docs": docs})
    alone = build(tmp_path / "alone", Bm25(), {"docs": {"de": docs["de"]}})
    assert find(both, ["bank"], lang="de") == find(alone, ["bank"], lang="de") != [[]]


def test_bm25_finds_in_chinese_and_thai(tmp_path: Path) -> None:
    docs = {
        "zh": docs_artifact(tmp_path / "zh", {"z1": "北京是中国的首都。", "z2": "上海是一个大城市。"}, "zh"),
        "th": docs_artifact(tmp_path / "th", {"t1": "กรุงเทพเป็นเมืองหลวง", "t2": "ฉันชอบกินข้าว"}, "th"),
    }
    place = build(tmp_path / "i", Bm25(), {"docs": docs})
    assert [n for n, _ in find(place, ["中国首都"], lang="zh")[0]] == ["z1"]
    assert [n for n, _ in find(place, ["เมืองหลวง"], lang="th")[0]] == ["t1"]
