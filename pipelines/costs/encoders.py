"""Which encoder a step runs, as far as its cost depends on it: width, vectors per token or per text, lengths."""

from dataclasses import dataclass
from typing import Any

from cluster.step import Step
from pipelines.costs.parameters import Parameters, find_parameters
from pipelines.students.scratch import Scratch

COLBERT_DIM, COLBERT_QUERY = 128, 32  # of published ColBERT checkpoints


@dataclass(frozen=True)
class Encoder:
    """``dim`` of a vector; a vector ``per_token`` or one per text; tokens of a padded query (0: its own) and of a cut
    document (0: whole); its parameters, None where it looks words up and computes nothing, or is not known."""

    dim: int
    per_token: bool
    query_length: int
    doc_length: int
    parameters: Parameters | None
    is_known: bool = True


def encoder_of_step(step: Step) -> Encoder:
    """The encoder of an encoding step, or the student of a training or a start."""
    train = getattr(step.config, "train", None)
    if train is not None:
        return encoder_of_student(train.student)
    if hasattr(step.config, "student"):
        return encoder_of_student(step.config.student)
    trained = step.parents.get("student") or next(
        (p for p in step.parents.values() if p.work.__name__ == "train"), None
    )
    if trained is not None:
        return encoder_of_step(trained)
    return _encoder_of_model(step.config)


def encoder_of_student(student: Any) -> Encoder:
    """The encoder that a student component builds."""
    if student.kind == "lexical":
        return Encoder(student.dim, True, 0, 0, None)
    base = student.base
    parameters = _of_scratch(base) if isinstance(base, Scratch) else find_parameters(base)
    if student.kind == "late_interaction":
        length = student.query_length if student.expansion else 0
        return Encoder(student.dim, True, length, student.doc_length, parameters, parameters is not None)
    width = parameters.dim if parameters else 768
    return Encoder(width, False, 0, getattr(student, "doc_length", 0) or 0, parameters, parameters is not None)


def _of_scratch(base: Scratch) -> Parameters:
    inner = 4 * base.hidden
    reads = float(base.layers * (4 * base.hidden**2 + 2 * base.hidden * inner))
    return Parameters(reads, reads, reads + base.vocabulary * base.hidden, base.hidden, "the recipe's dimensions")


def _encoder_of_model(config: Any) -> Encoder:
    model = getattr(config, "model", None)
    parameters = find_parameters(model) if model is not None else None
    name = str(getattr(model, "model", "")).lower()
    if "colbert" in name or "plaidx" in name:
        return Encoder(COLBERT_DIM, True, COLBERT_QUERY, 0, parameters, parameters is not None)
    width = parameters.dim if parameters else 768
    return Encoder(width, bool(getattr(config, "per_token", False)), 0, 0, parameters, parameters is not None)
