"""Overrides of ``translate-distill`` that make the whole path to three languages, none of whose data is here."""

from pathlib import Path

RECIPE = "translate-distill"


def three_languages(root: Path) -> list[str]:
    """One stage of translation, no gates, and a cross-encoder as teacher, whose costs are easily computed by hand."""
    return [
        f"source.path={root}/none",
        f"root={root}/r",
        'languages.docs=["zh", "fa", "ru"]',
        'evaluate.msmarco.languages=["zh", "ru"]',
        'translate={kind="nmt", model="facebook/nllb-200-distilled-1.3B", compute_type="float16", sentences=true}',
        "gates=none",
        'score.scorer={kind="cross_encoder", model="BAAI/bge-reranker-v2-m3", precision="fp16"}',
        "resources.score.memory_gb=8",
    ]
