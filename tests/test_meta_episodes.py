"""Episodes: a function of (seed, number), of training questions alone, with the languages of their specification."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from artifacts import table_artifact
from cluster.errors import StepError
from pipelines.docstore import Docstore, RowStore
from pipelines.sources.parallel import Parallel
from pipelines.tables import DOCS, QRELS, QUERIES, RANKINGS
from pipelines.training.meta.config import Meta
from pipelines.training.meta.episodes import Answers, RetrievalEpisodes
from pipelines.training.meta.negatives import choose

LANGS = ("ar", "de", "el", "hi")
ALIGN = ("el_el-el_ar-el_ar,el,hi", "hi_hi-hi_de-hi_de,hi,ar")
META = Meta(tasks=ALIGN, support=3, queries=2)
ARTICLES, QUESTIONS = 10, 5  # of each article; each has a sentence that answers it in every language


def write_collection(root: Path) -> None:
    """LAReQA's layout: sentences with ids of their own in each language, and folds by article."""
    groups, fold = [], []
    for article in range(ARTICLES):
        part = "test" if article < 2 else "dev" if article < 4 else "train"
        for n in range(QUESTIONS):
            groups.append(f"q{article}-{n}\tarticle {article}")
            fold.append(f"q{article}-{n}\t{part}")
            groups += [f"{lang}-p{article}-s{n}\tarticle {article}" for lang in LANGS]
    each = [(article, n) for article in range(ARTICLES) for n in range(QUESTIONS)]
    for lang in LANGS:
        files = {
            f"queries.{lang}.tsv": [f"q{a}-{n}\twhat is {a} {n} in {lang}" for a, n in each],
            f"candidates.{lang}.tsv": [f"{lang}-p{a}-s{n}\tit is {a} {n} {lang}\tall of {a} {lang}" for a, n in each],
            f"qrels.{lang}.tsv": [f"q{a}-{n} 0 {lang}-p{a}-s{n} 1" for a, n in each],
        }
        for name, lines in files.items():
            (root / name).write_text("\n".join(lines) + "\n")
    (root / "groups.tsv").write_text("\n".join(groups) + "\n")
    (root / "splits").mkdir()
    (root / "splits" / "fold0.tsv").write_text("\n".join(fold) + "\n")


def read_tables(source, root: Path, langs=LANGS):
    """The training tables of a source, as the steps write them: questions and documents by language, and judgements of
    the questions that there are."""
    tables = {"queries": {}, "docs": {}, "qrels": {}}
    for lang in langs:
        queries = [entry.row for entry in source.queries(lang, "train") if entry.row]
        docs = [entry.row for entry in source.docs(lang, "train") if entry.row]
        qrels = [entry.row for entry in source.qrels(lang, "train") if entry.row]
        tables["queries"][lang] = table_artifact(root / f"queries-{lang}@0", QUERIES, queries)
        tables["docs"][lang] = table_artifact(root / f"docs-{lang}@0", DOCS, docs)
        tables["qrels"][lang] = table_artifact(root / f"qrels-{lang}@0", QRELS, qrels)
    return tables


def open_episodes(tables, meta=META, nearest=None, seed=1):
    queries, docs = ({lang: Docstore.open(a) for lang, a in tables[role].items()} for role in ("queries", "docs"))
    return RetrievalEpisodes(meta, queries, docs, Answers(tables["qrels"], docs), nearest or {}, seed)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    root = tmp_path_factory.mktemp("lareqa")
    write_collection(root)
    return read_tables(Parallel(path=str(root)), tmp_path_factory.mktemp("tables"))


def test_an_episode_has_the_sets_of_its_specification(tables):
    """Three support questions, two in each query set, a triplet for each language of the passages."""
    episodes = open_episodes(tables)
    for number in range(40):
        episode = episodes.episode(number)
        assert str(episode.spec) == ALIGN[number % 2]
        ids = [list(dict.fromkeys(entry.query_id for entry in triplets)) for triplets in episode.sets]
        assert [len(part) for part in ids] == [3, 2, 2]
        assert len({query for part in ids for query in part}) == 7  # no question is in two sets
        for part, triplets in zip(episode.spec.parts, episode.sets, strict=True):
            of_each = Counter((entry.query_id, entry.langs[0]) for entry in triplets)
            assert set(of_each.values()) == {1}
            assert {lang for _, lang in of_each} == set(part.docs)
            for entry in triplets:
                (positive, negative), (lang, other) = entry.doc_ids, entry.langs
                assert entry.query_lang == part.query
                assert positive == f"{lang}-p{entry.query_id[1:].replace('-', '-s')}"  # the parallel answer
                assert other in part.docs
                assert negative.startswith(f"{other}-")
                assert negative.partition("-")[2] != positive.partition("-")[2]  # in no language


def test_an_episode_is_a_function_of_seed_and_number(tables):
    one, again = open_episodes(tables), open_episodes(tables)
    backwards = [again.episode(number) for number in range(30, -1, -1)][::-1]
    assert [one.episode(number) for number in range(31)] == backwards
    other = open_episodes(tables, seed=2)
    assert sum(one.episode(n) == other.episode(n) for n in range(31)) == 0


def test_every_question_and_every_negative_is_drawn(tables):
    """In 2,000 episodes each of the 30 training questions is in each kind of set, each passage a negative, and nothing
    else is in any."""
    episodes = open_episodes(tables)
    queries, negatives = [Counter() for _ in range(3)], Counter()
    for number in range(2000):
        for count, triplets in zip(queries, episodes.episode(number).sets, strict=True):
            count.update({entry.query_id for entry in triplets})
            negatives.update(entry.doc_ids[1] for entry in triplets)
    trained = {f"q{article}-{n}" for article in range(4, ARTICLES) for n in range(QUESTIONS)}
    assert [set(count) for count in queries] == [trained] * 3
    expected = 2000 * 3 / 30
    assert all(abs(value - expected) < 5 * expected**0.5 for value in queries[0].values())
    assert set(negatives) == {f"{lang}-p{q[1:].replace('-', '-s')}" for q in trained for lang in LANGS}


def check_articles(tables, root: Path, meta: Meta) -> None:
    """No article of the test or dev fold is in 2,000 episodes, neither as a question nor as a passage."""
    group = dict(line.split("\t") for line in (root / "groups.tsv").read_text().splitlines())
    fold = dict(line.split("\t") for line in (root / "splits" / "fold0.tsv").read_text().splitlines())
    held_out = {group[query] for query, part in fold.items() if part != "train"}
    episodes, seen = open_episodes(tables, meta), set()
    for number in range(2000):
        entries = [entry for triplets in episodes.episode(number).sets for entry in triplets]
        seen |= {group[name] for entry in entries for name in (entry.query_id, *entry.doc_ids)}
    assert held_out
    assert not seen & held_out
    assert seen == set(group.values()) - held_out


def test_no_article_of_a_held_out_fold_is_in_any_episode(tables, tmp_path):
    write_collection(tmp_path)
    check_articles(tables, tmp_path, META)


def test_no_article_of_a_held_out_fold_of_lareqa_is_in_any_episode(shared_data, tmp_path):
    root = shared_data / "lareqa"
    source = Parallel(path=str(root), context=True)
    found = read_tables(source, tmp_path)
    check_articles(found, root, Meta(tasks=ALIGN))
    (first,) = (entry.row["text"] for entry in list(source.docs("el", "all"))[:1])
    sentence, context = (root / "candidates.el.tsv").read_text().splitlines()[0].split("\t")[1:]
    assert first == f"{sentence} {context}"  # an answer is read with its paragraph


def test_a_passage_that_a_translation_lacks_is_no_answer(tables, tmp_path):
    """A question without an answer in a language is in no set of it, and is asked in others."""
    rows = [row for row in tables["docs"]["ar"].read().to_pylist() if row["doc_id"] != "ar-p5-s0"]
    docs = {**tables["docs"], "ar": table_artifact(tmp_path / "docs-ar@1", DOCS, rows)}
    episodes = open_episodes({**tables, "docs": docs})
    drawn = [Counter(), Counter(), Counter()]
    for number in range(0, 600, 2):  # of the first specification
        for count, triplets in zip(drawn, episodes.episode(number).sets, strict=True):
            count.update(entry.query_id for entry in triplets)
    assert drawn[0]["q5-0"]
    assert not drawn[1]["q5-0"]
    assert not drawn[2]["q5-0"]


def test_more_questions_than_there_are_is_an_error_before_training(tables):
    said = (
        r"train\.meta\.tasks\[0\]: .*needs 32 different questions \(support = 28, queries = 2\), and 30 of queries-ar"
    )
    with pytest.raises(StepError, match=said):
        open_episodes(tables, META.model_copy(update={"support": 28}))
    assert open_episodes(tables, META.model_copy(update={"support": 26})).episode(0)


def rankings(root: Path, name: str, rows) -> RowStore:
    found = [{"query_id": q, "doc_ids": list(ids), "scores": list(scores)} for q, ids, scores in rows]
    return RowStore.open(table_artifact(root / f"{name}@0", RANKINGS, found))


def test_similar_sets_are_the_same_question_elsewhere_and_the_nearest(tables, tmp_path):
    """The nearest questions are written to be those of the same article, in order."""
    trained = [f"q{article}-{n}" for article in range(4, ARTICLES) for n in range(QUESTIONS)]
    ranked = []
    for query in trained:
        article, n = query[1:].split("-")
        ids = [f"q{article}-{(int(n) + step) % QUESTIONS}" for step in range(1, QUESTIONS)]
        ranked.append((query, ids, [-float(rank) for rank in range(len(ids))]))
    meta = Meta(algorithm="maml", tasks=("el_el-ar_ar", "el_el-el_ar"), support=2, queries=3, sampling="similar",
                neighbours=2)  # fmt: skip
    nearest = {"questions": {pair: rankings(tmp_path, pair, ranked) for pair in ("el-ar", "el-el")}}
    episodes, same = open_episodes(tables, meta, nearest), 0
    for number in range(200):
        support, queries = ({e.query_id for e in triplets} for triplets in episodes.episode(number).sets)
        asks_elsewhere = number % 2 == 0
        neighbours = set()
        for query in support:
            row = next(ids for one, ids, _ in ranked if one == query)
            neighbours |= set([other for other in row if other not in support][:2])
        pool = neighbours | (support if asks_elsewhere else set())
        assert queries <= pool if len(pool) >= 3 else pool <= queries  # what lacks is drawn from all
        assert asks_elsewhere or not queries & support
        same += len(queries & support)
    assert same > 50


@pytest.mark.parametrize(
    ("negatives", "expected"), [("hard", {1.2, 1.3}), ("semi_hard", {1.4, 1.5}), ("easy", {1.7, 2.0})]
)
def test_negatives_are_those_in_range(negatives, expected):
    """The relevant passage is at 1.35 and the margin 0.2."""
    meta = META.model_copy(update={"negatives": negatives})
    distances, random = np.array([1.2, 1.3, 1.4, 1.5, 1.7, 2.0]), np.random.default_rng(0)
    assert {float(distances[choose(distances, 1.35, meta, random)]) for _ in range(60)} == expected


@pytest.mark.parametrize(
    ("negatives", "positive", "expected"),
    [("hard", 1.0, 1.2), ("semi_hard", 1.0, 1.2), ("easy", 2.5, 1.7), ("semi_hard", 2.5, 1.7)],
)
def test_where_no_negative_is_in_range_the_nearest_to_it_is_taken(negatives, positive, expected):
    meta = META.model_copy(update={"negatives": negatives, "negative_margin": 0.1})
    distances = np.array([1.2, 1.4, 1.7])
    assert distances[choose(distances, positive, meta, np.random.default_rng(0))] == expected


def test_near_negatives_are_looked_up_in_the_languages_of_the_set(tables, tmp_path):
    """Of each question its answer is at −1.0, two passages are nearer and all others farther."""
    trained = [(a, n) for a in range(4, ARTICLES) for n in range(QUESTIONS)]
    found = {}
    for lang in ("ar", "el"):
        rows = []
        for a, n in trained:
            near = [f"{lang}-p{a}-s{(n + 1) % QUESTIONS}", f"{lang}-p{a}-s{(n + 2) % QUESTIONS}", f"{lang}-p{a}-s{n}"]
            rest = [doc for b, m in trained if (doc := f"{lang}-p{b}-s{m}") not in near]
            rows.append((f"q{a}-{n}", [*near, *rest], [-0.8, -0.9, -1.0, *[-1.5] * len(rest)]))
        found[f"el-{lang}"] = rankings(tmp_path, lang, rows)
    meta = Meta(algorithm="maml", tasks="el_el-el_ar,el", support=2, queries=2, negatives="hard")
    episodes = open_episodes(tables, meta, {"passages": found})
    for number in range(50):
        for entry in (entry for triplets in episodes.episode(number).sets for entry in triplets):
            article, n = map(int, entry.query_id[1:].split("-"))
            own = {(article, (n + step) % QUESTIONS) for step in (1, 2)}
            _, p, s = entry.doc_ids[1].split("-")
            assert (int(p[1:]), int(s[1:])) in own
