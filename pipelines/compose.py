"""Compose the text of a recipe for a collection that was surveyed: commented, so that it can be read and changed.

A collection with translations, questions and judgements gets a recipe that trains the lexical student on its training
questions and measures it on its test questions. Any other gets a recipe that indexes and serves a ready encoder, and
measures it where there are judgements. The settings of training are those of the recipe ``xquad``.
"""

import math

from pipelines import languages
from pipelines.filters.fields import METADATA
from pipelines.sources.splits import describe_splits
from pipelines.survey import Survey, example_queries
from pipelines.toml import format_value

BATCH = 48  # questions a step, as in the recipe xquad
PASSES = 10  # of training over the questions, as there
STEPS = (50, 2000)  # least and most: minutes on two cores
EXACT_TO = 20_000  # documents, beyond which the index is compressed; each has some 50 KB of token vectors


def compose(name: str, found: Survey) -> str:
    """The text of the recipe file."""
    blocks = _training_blocks(name, found) if found.is_trainable else _serving_blocks(name, found)
    return "\n\n".join(block.strip("\n") for block in blocks if block) + "\n"


def _training_blocks(name: str, found: Survey) -> list[str]:
    lang, query_lang = found.original, found.query_lang
    teacher = "" if lang == "en" else f"; it is English, so choose one for {languages.name(lang)}"
    asked = sorted(set(found.queries) - {query_lang})
    others = f"; also in {', '.join(asked)}: of a list, each question is asked in one" if asked else ""
    languages_read = f"\nquery_lang = {format_value(query_lang)}\ndoc_lang = {format_value(lang)}"
    reads = "" if lang == query_lang == "en" else languages_read
    k = _selected(found)
    keys = f"train_split = {format_value(found.train_split)}"
    if found.dev_split:
        keys += f"\nvalidate_split = {format_value(found.dev_split)}  # questions that choose the best checkpoint"
    return [
        _head(name, found, "Trains a small student on the collection's own translations, and measures it"),
        keys,
        _examples(found),
        _source(found),
        f"""
[languages]
original = {format_value(lang)}  # of the texts that the others translate
query = {format_value(query_lang)}  # of the training questions{others}
docs = {format_value([lang, *found.translations])}  # in which the student reads documents""",
        """
[translate]
kind = "parallel"  # the collection's own translations; kind = "nmt" makes them""",
        f"""
[select]  # the passages that the teacher scores for each training question
k = {k}
index = {{ kind = "bm25" }}{reads}""",
        f"""
[score]  # the teacher: it reads questions and passages in {languages.name(lang)}{teacher}
scorer = {{ kind = "dense", model = "minilm" }}{reads}""",
        _train(found),
        """
[train.student]  # learns foreign words from the translations, in minutes on two cores; see the README for others
kind = "lexical"
dim = 256
gain = 20""",
        _index(found),
        _evaluation(name, found),
        _run(found),
        """
[resources]
encode = { cpus = 2, actors = 1 }
score = { cpus = 2, actors = 1 }""",
    ]


def _serving_blocks(name: str, found: Survey) -> list[str]:
    what = "Indexes, measures and serves" if found.is_judged else "Indexes and serves"
    return [
        _head(name, found, f"{what} a ready encoder"),
        _examples(found),
        _source(found),
        f"[languages]\ndocs = {format_value(list(found.docs))}",
        """
[student]  # a checkpoint of sentence-transformers, PyLate or ColBERT. minilm reads English; for other languages choose
model = "minilm"  # another, such as sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2""",
        _index(found),
        _evaluation(name, found),
        _run(found),
    ]


def _head(name: str, found: Survey, what: str) -> str:
    return f"""\
# {what}. Written by: babelray new {name}
#   babelray run {name}.toml              makes what is missing, and goes on where it was stopped
#   babelray search {name}.toml "words"   searches from the command line
#   babelray serve {name}.toml            serves a search page and an API on port 8000
about = {format_value(f"{found.layout.name} in {', '.join(map(languages.name, found.docs))}")}"""


def _examples(found: Survey) -> str:
    examples = example_queries(found.layout.source, lang=found.query_lang)
    lines = "".join(f"    {format_value(text)},\n" for text in examples)
    return f"examples = [  # questions of the collection, asked at the end of a run\n{lines}]" if examples else ""


def _source(found: Survey) -> str:
    """The table of the source: its keys that are not defaults."""
    keys = found.layout.source.model_dump(mode="json", exclude_defaults=True, exclude={"kind"})
    note = describe_splits(found.layout.source) if found.queries else None
    lines = [f"{key} = {format_value(value)}" for key, value in {"kind": found.layout.source.kind, **keys}.items()]
    if METADATA in keys:
        kept = lines.pop(list(keys).index(METADATA) + 1)
        lines.append(f"{kept}  # fields of documents that a search can be limited by, with --where; leave out any")
    return "\n".join(["[source]", *([f"# {note}"] if note else []), *lines])


def _selected(found: Survey) -> int:
    """How many passages the teacher scores for a question."""
    return max(2, min(32, found.docs[found.original]))


def _train(found: Survey) -> str:
    questions, k = found.splits[found.train_split], _selected(found)
    steps = min(max(round(PASSES * questions / BATCH), STEPS[0]), STEPS[1])
    return f"""
[train]
steps = {steps}  # {steps * BATCH / questions:.0f} passes over {questions:,} questions
batch = {BATCH}
ways = {min(8, k)}
pool = {k}
lr = 3e-3
lr_groups = {{ query_weights = 2e-2, score_scale = 1e-2 }}
warmup = {min(20, steps // 4)}
schedule = "linear"
loss = {{ kind = "kl", alpha = 20, temperature = 2 }}
validation = {{ every = {max(1, steps // 2)}, max_queries = 100, max_docs = 2000 }}
resources = {{ cpus = 2 }}"""


def _index(found: Survey) -> str:
    if sum(found.docs.values()) > EXACT_TO:
        return '[index]\nkind = "plaid"  # compressed vectors\nbits = 4'
    return '[index]\nkind = "exact"  # every vector as it is: a small collection needs no compression'


def _evaluation(name: str, found: Survey) -> str:
    if not found.is_judged:
        return f"# [evaluate.{name}] would measure the search: it needs questions and judgements"
    keys = {"split": found.test_split, "query_lang": found.query_lang}
    return "\n".join([f"[evaluate.{name}]", *(f"{key} = {format_value(value)}" for key, value in keys.items())])


def _run(found: Survey) -> str:
    """The share of rejects that a run allows: what is missing or malformed already, and half as much again."""
    tables = [found.docs, found.queries, found.judgements, found.splits]
    smallest = min((count for table in tables for count in table.values() if count), default=1)
    malformed = sum(found.rejects.values())
    missing = max((1 - found.shared[lang] for lang in found.translations), default=0.0)
    share = max(missing, malformed / (malformed + smallest))
    if share <= 0:
        return ""
    allowed = min(1.0, math.ceil(share * 150) / 100)
    return f"[run]\nmax_rejects = {allowed}  # share of a table's records that may be missing or malformed"
