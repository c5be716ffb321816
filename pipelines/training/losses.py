"""Losses: what the student's scores of a query's passages are compared with. The kind of the loss decides what a
training reads (``reads``): the teacher's scores, or labels and a selection of passages.

A loss turns scores into distributions over the W passages of an entry by a softmax in float32 and returns one number
per entry, in nats. Scores are divided by ``temperature``, and the loss is not multiplied by its square, as Hinton et
al. (2015) do: a learning rate that suits one temperature may not suit another.

Tensor names end in their shape: N entries, W ways (passages per entry), M candidates, L languages, Q queries.
"""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from cluster.component import Component

if TYPE_CHECKING:
    from torch import Tensor


class _Distillation(Component):
    """A distance between the student's and the teacher's distributions."""

    reads: ClassVar[Literal["scores", "labels"]] = "scores"
    alpha: float = Field(1.0, gt=0)  # multiplies the teacher's scores (PLAID-X: distillation_alpha)
    temperature: float = Field(1.0, gt=0)  # divides both sides' scores

    def log_probabilities(self, student_NW: "Tensor", teacher_NW: "Tensor") -> "tuple[Tensor, Tensor]":
        """The log-softmaxes of both sides, float32 [N, W].

        Raises:
            ValueError: the shapes differ, or there is only one way, over which every softmax is 1.
        """
        if student_NW.ndim != 2 or student_NW.shape != teacher_NW.shape:
            raise ValueError(
                "expected the student's and the teacher's scores as [entries, ways], "
                f"got {list(student_NW.shape)} and {list(teacher_NW.shape)}"
            )
        if student_NW.shape[1] < 2:
            raise ValueError("expected at least 2 ways: over one passage every softmax is 1 and nothing is learnt")
        teacher_NW = teacher_NW.detach().float() * (self.alpha / self.temperature)
        return (student_NW.float() / self.temperature).log_softmax(-1), teacher_NW.log_softmax(-1)


class KullbackLeibler(_Distillation):
    """KL(teacher‖student) = Σ p_T (log p_T − log p_S), the loss of both papers (TD §3.1, MTD §3.1), or its reverse.

    ``teacher_student`` covers all that the teacher likes; ``student_teacher`` seeks its best mode.
    """

    kind: Literal["kl"] = "kl"
    direction: Literal["teacher_student", "student_teacher"] = "teacher_student"

    def per_entry(self, student_NW: "Tensor", teacher_NW: "Tensor") -> "Tensor":
        """[N] divergences."""
        student_NW, teacher_NW = self.log_probabilities(student_NW, teacher_NW)
        p_NW, q_NW = (teacher_NW, student_NW) if self.direction == "teacher_student" else (student_NW, teacher_NW)
        return (p_NW.exp() * (p_NW - q_NW)).sum(-1)


class MeanSquaredError(_Distillation):
    """Mean over the ways of the squared difference of the log-softmaxes (PLAID-X: ``--kd_loss MSE``)."""

    kind: Literal["mse"] = "mse"

    def per_entry(self, student_NW: "Tensor", teacher_NW: "Tensor") -> "Tensor":
        """[N] errors."""
        student_NW, teacher_NW = self.log_probabilities(student_NW, teacher_NW)
        return (student_NW - teacher_NW).square().mean(-1)


class InfoNce(Component):
    """−log of the relevant passage's share of the softmax over an entry's candidates (van den Oord et al. 2018).

    With ``in_batch`` the candidates are the passages of all queries of the batch, but for those known to be relevant to
    the query; else they are the entry's own. The baseline MTT (MTD §4; PLAID-X: ``--kd_loss None``) is ``in_batch`` =
    false with 2 ways. Cosines of a dense student need a ``temperature`` near 0.05.
    """

    reads: ClassVar[Literal["scores", "labels"]] = "labels"
    kind: Literal["infonce"] = "infonce"
    temperature: float = Field(1.0, gt=0)
    in_batch: bool = True

    def per_entry(self, student_NW: "Tensor") -> "Tensor":
        """[N] losses of entries whose first passage is the relevant one."""
        return -(student_NW.float() / self.temperature).log_softmax(-1)[:, 0]

    def among(self, student_NM: "Tensor", positive_N: "Tensor") -> "Tensor":
        """[N] losses of entries with M candidates each, of which the one at ``positive_N`` is relevant; a candidate
        whose score is -inf does not count."""
        logs_NM = (student_NM.float() / self.temperature).log_softmax(-1)
        return -logs_NM.gather(1, positive_N[:, None])[:, 0]


DistillationLoss = KullbackLeibler | MeanSquaredError
AnyLoss = Annotated[KullbackLeibler | MeanSquaredError | InfoNce, Field(discriminator="kind")]


def language_consistency(student_QLW: "Tensor") -> "Tensor":
    """How much a query's distribution over the same passages changes with their language: [Q].

    The mean over the pairs of different languages of ½KL(a‖b) + ½KL(b‖a), where a and b are softmaxes over the W ways:

        2 / (L (L − 1)) · Σ_{a<b} ½ Σ_w (p_aw − p_bw)(log p_aw − log p_bw)

    The released MTD code adds such a term to round-robin batches, unmentioned in the paper. It takes the mean over all
    pairs a ≤ b, those of a language with itself too, and divides by the number of passages, not of queries: its term is
    (L − 1) / ((L + 1) · W) times the mean over queries of this one.

    Raises:
        ValueError: the scores are not [queries, languages, ways].
    """
    if student_QLW.ndim != 3:
        raise ValueError(f"expected the student's scores as [queries, languages, ways], got {list(student_QLW.shape)}")
    languages = student_QLW.shape[1]
    if languages < 2:
        return student_QLW.new_zeros(len(student_QLW))
    logs_QLW = student_QLW.float().log_softmax(-1)
    # ½KL(a‖b) + ½KL(b‖a) = ½ Σ (p_a − p_b)(log p_a − log p_b)
    apart_QLLW = logs_QLW.exp()[:, :, None] - logs_QLW.exp()[:, None]
    logs_apart_QLLW = logs_QLW[:, :, None] - logs_QLW[:, None]
    both_orders = (apart_QLLW * logs_apart_QLLW).sum((1, 2, 3)) / 2
    return both_orders / (languages * (languages - 1))
