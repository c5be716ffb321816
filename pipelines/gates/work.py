"""The step *gate*: rows and their translations -> the translations, with a reason in ``reject`` where a gate failed."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa

from cluster.artifact import Artifact
from cluster.receipt import take_spaced
from pipelines import languages
from pipelines.gates.config import GateConfig
from pipelines.gates.detector import Detector
from pipelines.gates.judge import LANGUAGE, WITHOUT_MARKS, judge
from pipelines.gates.lengths import Expected
from pipelines.text import join_title

SAMPLES = 3  # rejected rows shown per reason and part
SAMPLE_LENGTH = 160  # characters of each text


class Gate:
    """RowWork: the same part of DOCS (or QUERIES) and of their translation -> the translation, judged.

    A row that was rejected before keeps its reason; one that fails a gate keeps its text. ``facts`` of a part holds
    under ``samples`` a few rows that each gate rejects: id, how the source begins, how the translation begins.
    """

    version: ClassVar[int] = 2  # 2: the gate ``ending``

    def __init__(self, config: GateConfig, inputs: Mapping[str, Artifact]) -> None:
        self.facts: dict[str, Any] = {}
        self._gates = gates = config.gates
        if languages.script(config.target_lang) in WITHOUT_MARKS:
            self._gates = gates.model_copy(update={"ending": 0.0})
        self._expected = Expected.between(config.source_lang, config.target_lang)
        others = (config.source_lang, *gates.against)
        self._detector = Detector(config.target_lang, others) if gates.language > 0 else None

    def __call__(self, rows: pa.Table, translations: pa.Table) -> pa.Table:
        """Judge a part."""
        columns = [name for name in ("title", "text", "reject") if name in rows.column_names]
        sources, targets = rows.select(columns).to_pylist(), translations.select(columns).to_pylist()
        reasons = [source["reject"] or target["reject"] for source, target in zip(sources, targets, strict=True)]
        good = [i for i, reason in enumerate(reasons) if reason is None]
        pairs = [_texts(sources[i], targets[i]) for i in good]
        rejected: dict[str, list[tuple[str, ...]]] = {}
        for i, pair, verdict in zip(good, pairs, self.judge(pairs), strict=True):
            reasons[i] = verdict
            if verdict:
                rejected.setdefault(verdict, []).append((translations[0][i].as_py(), *map(_begin, pair)))
        samples = {verdict: take_spaced(rows, SAMPLES) for verdict, rows in rejected.items()}
        self.facts = {"samples": samples} if samples else {}
        column = translations.column_names.index("reject")
        return translations.set_column(column, "reject", pa.array(reasons, pa.string()))

    def judge(self, pairs: Sequence[tuple[str, str]]) -> list[str | None]:
        """The verdict on each (source, target): None, or the reason of the first gate that it fails. The language is
        asked last, and of what passed the others."""
        verdicts = [judge(source, target, self._gates, self._expected) for source, target in pairs]
        if self._detector is None:
            return verdicts
        good = [i for i, verdict in enumerate(verdicts) if verdict is None]
        texts = [pairs[i] for i in good]
        least = self._gates.language
        sources, targets = [source for source, _ in texts], [target for _, target in texts]
        confidences = self._detector.measure_translations(sources, targets, least)
        for i, confidence in zip(good, confidences, strict=True):
            verdicts[i] = LANGUAGE if confidence < least else None
        return verdicts


def _texts(source: dict[str, Any], target: dict[str, Any]) -> tuple[str, str]:
    """What is compared: title and text, or the text alone where one side has no title."""
    if source.get("title") and target.get("title"):
        return join_title(source["title"], source["text"]), join_title(target["title"], target["text"])
    return source["text"], target["text"]


def _begin(text: str) -> str:
    """How a text begins."""
    return text if len(text) <= SAMPLE_LENGTH else text[: SAMPLE_LENGTH - 1] + "…"
