"""The student architectures, and loading of trained encoders. Importing this loads no model library."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipelines.students.base import Corpus, Encoder
from pipelines.students.dense import Dense
from pipelines.students.late_interaction import LateInteraction
from pipelines.students.lexical import Lexical

AnyStudent = Annotated[LateInteraction | Dense | Lexical, Field(discriminator="kind")]


def load_encoder(model: str | Path, device: str | None = None) -> Encoder:
    """Load a trained student or any other encoder: a student's directory, a sentence-transformers, PyLate or Stanford
    ColBERT checkpoint, or a plain Hugging Face transformer (mean-pooled, as sentence-transformers reads it).

    ``device`` is a torch device; None takes the accelerator if there is one. Importing torch and
    sentence-transformers takes seconds.
    """
    from pipelines.students.encoder import load

    return load(str(model), device)


__all__ = ["AnyStudent", "Corpus", "Dense", "Encoder", "LateInteraction", "Lexical", "load_encoder"]
