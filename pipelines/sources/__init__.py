"""Sources: where documents, questions and judgements, or pairs of sentences, come from. The union is the registry."""

from typing import Annotated

from pydantic import Field

from pipelines.sources.atlas import AtlasSource
from pipelines.sources.base import PairSource
from pipelines.sources.beir import Beir
from pipelines.sources.bitext import Bitext
from pipelines.sources.directory import Directory
from pipelines.sources.irdatasets import IrDatasets
from pipelines.sources.jsonl import Jsonl
from pipelines.sources.msmarco import Mmarco, MsMarco
from pipelines.sources.parallel import Parallel
from pipelines.sources.squad import Squad
from pipelines.sources.sts import Sts

AnySource = Annotated[
    MsMarco | Mmarco | Parallel | Squad | Beir | Jsonl | Directory | IrDatasets | AtlasSource | Sts | Bitext,
    Field(discriminator="kind"),
]

__all__ = [
    "AnySource",
    "AtlasSource",
    "Beir",
    "Bitext",
    "Directory",
    "IrDatasets",
    "Jsonl",
    "Mmarco",
    "MsMarco",
    "PairSource",
    "Parallel",
    "Squad",
    "Sts",
]
