"""The student architectures, and loading of trained encoders. Importing this loads no model library."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipelines.devices import Device
from pipelines.precision import Precision
from pipelines.students.base import Corpus, Encoder
from pipelines.students.dense import Dense
from pipelines.students.late_interaction import LateInteraction
from pipelines.students.lexical import Lexical

AnyStudent = Annotated[LateInteraction | Dense | Lexical, Field(discriminator="kind")]


def load_encoder(
    model: str | Path,
    device: Device,
    precision: Precision = "fp32",
    batch_tokens: int | None = None,
    per_token: bool = False,
) -> Encoder:
    """Load a trained student or any other encoder: a student's directory, a sentence-transformers, PyLate or Stanford
    ColBERT checkpoint, or a plain Hugging Face transformer (mean-pooled, as sentence-transformers reads it).

    ``precision`` is what it computes vectors with; they are float32. ``batch_tokens`` bounds a batch, padding included
    (None: 2,048 on a CPU, 65,536 on a GPU). ``per_token`` gives a vector per token, to be compared by MaxSim, also
    where the checkpoint was trained to give one per text. Loading torch and the library takes seconds.
    """
    from pipelines.precision import cast_weights
    from pipelines.students.loading import load

    encoder = load(str(model), device, precision, batch_tokens, per_token)
    cast_weights(encoder.model, precision)  # to train it, open it with ``loading.load``
    return encoder


__all__ = ["AnyStudent", "Corpus", "Dense", "Encoder", "LateInteraction", "Lexical", "load_encoder"]
