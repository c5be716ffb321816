"""Scorers: the teachers that say how relevant a document is to a query. The union below is their registry."""

from typing import Annotated

from pydantic import Field

from pipelines.scorers.bm25 import Bm25Scorer
from pipelines.scorers.cross_encoder import CrossEncoderScorer
from pipelines.scorers.dense import DenseScorer
from pipelines.scorers.ensemble import EnsembleScorer
from pipelines.scorers.llm import LlmScorer
from pipelines.scorers.monot5 import MonoT5Scorer

Scorer = Annotated[
    CrossEncoderScorer | MonoT5Scorer | LlmScorer | DenseScorer | Bm25Scorer | EnsembleScorer,
    Field(discriminator="kind"),
]
