"""Which encoder a step or a server uses, and opening it: a ready checkpoint, or a student that was trained here."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from cluster.artifact import Artifact
from cluster.component import Component, Speed
from cluster.errors import StepError
from pipelines.devices import device
from pipelines.models import OptionalModel, locate, resolve
from pipelines.precision import Precision

if TYPE_CHECKING:
    from pipelines.students import Encoder


class EncoderConfig(Component):
    """An encoder and the precision in which it computes.

    Attributes:
        model: a ready encoder …
        checkpoint: … or which model of the ``student`` artifact: best on the dev set, last, or before training.
        per_token: compare token vectors by MaxSim also where the checkpoint has one vector per text.
        precision: what the encoder computes with; see ``pipelines.precision``.
        batch_tokens: tokens of a batch, padding included; fewer where memory runs out. None: 2,048 on a CPU, 65,536 on
            a GPU.
    """

    model: OptionalModel = None
    checkpoint: Literal["best", "last", "start"] = "best"
    per_token: bool = False
    precision: Precision = "fp32"
    batch_tokens: Speed | None = None


def open_encoder(config: EncoderConfig, inputs: Mapping[str, Any]) -> "Encoder":
    """Open the encoder of a config, on the device that this process may use.

    Raises:
        StepError: there is neither a model nor a ``student`` among the inputs, or both; or the student is not complete.
    """
    from pipelines.students import load_encoder

    if (config.model is None) == ("student" not in inputs):
        raise StepError("expected a model, or an artifact `student` among the inputs, and not both")
    config = locate(config, inputs)
    if config.model:
        model = resolve(config.model)
    else:
        student: Artifact = inputs["student"]
        _ = student.manifest  # raises where the training is not complete
        model = str((student.place / config.checkpoint).fetch())
    return load_encoder(model, device(), config.precision, config.batch_tokens, per_token=config.per_token)
