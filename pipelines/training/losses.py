"""Losses: what the student's scores of a query's passages are compared with. The kind of the loss decides what a
training reads (``reads``): the teacher's scores, labels and a selection of passages, sentence pairs, or the teacher's
vectors.

All but ``triplet``, ``cosine`` and ``vectors`` turn scores into distributions over the passages by a softmax in float32
and return one number per entry, in nats. Scores are divided by ``temperature``, and the loss is not multiplied by its
square, as Hinton et al. (2015) do: a learning rate that suits one temperature may not suit another.

Tensor names end in their shape: N entries, W ways (passages per entry), M candidates, L languages, Q queries.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeVar

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from cluster.component import Component

if TYPE_CHECKING:
    from torch import Tensor

Reads = Literal["scores", "labels", "pairs", "vectors"]
PairLanguages = Literal["mono", "cross", "both"]

Score = TypeVar("Score", float, "Tensor")
LEAST_SQUARE = 1e-12  # of a distance: below it the square root has no gradient


class Loss(Component):
    """What every loss has: the dimensions to which vectors are cut before they are compared.

    With ``dims`` the loss is the mean, weighted by ``dim_weights``, of the losses over the first so many dimensions of
    the vectors, made unit vectors again where the encoder makes unit vectors (Kusupati et al. 2022, Matryoshka). A
    length that is not named is not trained, the full one included.
    """

    reads: ClassVar[Reads]
    dims: tuple[PositiveInt, ...] = ()
    dim_weights: tuple[PositiveFloat, ...] = ()  # one for each of dims; () weighs them alike

    @model_validator(mode="after")
    def _check_dims(self) -> "Loss":
        if len(set(self.dims)) != len(self.dims):
            raise ValueError(f"dims: each dimension once, got {list(self.dims)}")
        if self.dim_weights and len(self.dim_weights) != len(self.dims):
            raise ValueError(
                f"dim_weights: expected one weight for each of dims = {list(self.dims)}, got {list(self.dim_weights)}"
            )
        return self

    def check_dim(self, dim: int) -> None:
        """See that vectors of ``dim`` dimensions can be cut to ``dims``. Raises ValueError where they are shorter."""
        if self.dims and max(self.dims) > dim:
            raise ValueError(
                f"loss.dims = {list(self.dims)}: the student's vectors have {dim} dimensions: name no more"
            )

    @property
    def cuts(self) -> tuple[tuple[int | None, float], ...]:
        """To how many dimensions vectors are cut, None for all, each with its weight; weights add up to 1."""
        if not self.dims:
            return ((None, 1.0),)
        weights = self.dim_weights or (1.0,) * len(self.dims)
        return tuple((dim, weight / sum(weights)) for dim, weight in zip(self.dims, weights, strict=True))

    @property
    def reads_teacher(self) -> bool:
        """Whether a training reads a teacher's scores, perhaps beside labels."""
        return self.reads == "scores"


class _Distillation(Loss):
    """A distance between the student's and the teacher's distributions."""

    reads: ClassVar[Reads] = "scores"
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


class FalseNegatives(Component):
    """Which candidates are perhaps relevant, though nobody has judged them, and are left out as negatives: those whose
    score is above the relevant passage's, less a margin. The names are those of ``[mine]``.

    ``by`` says whose scores are compared. The student's are known of every candidate of the batch, and are those of the
    moment, before ``temperature`` and at the same dimensions as the loss. The teacher's are known of the passages that
    it scored for this query: the query's own mined passages, and by chance another query's; a candidate without such a
    score counts as a negative, and so does every candidate where the relevant passage has none.
    """

    by: Literal["student", "teacher"] = "student"
    absolute_margin: float | None = Field(None, ge=0)
    relative_margin: float | None = Field(None, ge=0)  # a share of the relevant passage's score, without its sign

    @model_validator(mode="after")
    def _has_a_margin(self) -> "FalseNegatives":
        if (self.absolute_margin is None) == (self.relative_margin is None):
            raise ValueError("false_negatives: give absolute_margin or relative_margin, one of the two")
        return self

    def limit(self, positive: Score) -> Score:
        """The score above which a candidate is left out, given that of the relevant passage."""
        if self.absolute_margin is not None:
            return positive - self.absolute_margin
        return positive - abs(positive) * (self.relative_margin or 0.0)

    def find(self, scores: Mapping[str, float], positive: str) -> list[str]:
        """The ids that are left out by a teacher's scores of a query's passages; none where the positive has none."""
        if positive not in scores:
            return []
        limit = self.limit(scores[positive])
        return [doc_id for doc_id, score in scores.items() if score > limit and doc_id != positive]


class _Contrast(Loss):
    """A relevant passage against others.

    With ``in_batch`` the candidates are the passages of all queries of the batch, but for those known to be relevant to
    the query, in any language; else they are the entry's own. ``false_negatives`` leaves out more of them.
    """

    reads: ClassVar[Reads] = "labels"
    in_batch: bool = True
    false_negatives: FalseNegatives | None = None

    @property
    def reads_teacher(self) -> bool:
        """Whether a teacher says which candidates are left out."""
        return self.false_negatives is not None and self.false_negatives.by == "teacher"

    def _leave_out(self, student_NM: "Tensor", positive_N1: "Tensor") -> "Tensor":
        """The scores in float32, -inf where the student's own say that a candidate is left out."""
        student_NM = student_NM.float()
        if self.false_negatives is None or self.false_negatives.by != "student":
            return student_NM
        scores_NM = student_NM.detach()
        left_out_NM = scores_NM > self.false_negatives.limit(scores_NM.gather(1, positive_N1))
        return student_NM.masked_fill(left_out_NM.scatter(1, positive_N1, False), float("-inf"))


class InfoNce(_Contrast):
    """−log of the relevant passage's share of the softmax over an entry's candidates (van den Oord et al. 2018).

    The baseline MTT (MTD §4; PLAID-X: ``--kd_loss None``) is ``in_batch`` = false with 2 ways. Cosines of a dense
    student need a ``temperature`` near 0.05.
    """

    kind: Literal["infonce"] = "infonce"
    temperature: float = Field(1.0, gt=0)

    def per_entry(self, student_NM: "Tensor", positive_N: "Tensor") -> "Tensor":
        """[N] losses of entries with M candidates each, of which the one at ``positive_N`` is relevant; a candidate
        whose score is -inf does not count."""
        logs_NM = (self._leave_out(student_NM, positive_N[:, None]) / self.temperature).log_softmax(-1)
        return -logs_NM.gather(1, positive_N[:, None])[:, 0]


class Triplet(_Contrast):
    """By how much a negative's score exceeds that of the relevant passage less ``margin``, 0 where it does not; the
    mean over an entry's negatives: max(0, margin − score of the relevant passage + score of the negative) (Schroff et
    al. 2015).

    The ``distance`` of a ``score`` is the score with its sign turned: of a dense student 1 − cosine, of late
    interaction a sum of cosines over the query's tokens, which asks for a margin as many times larger. ``euclidean`` is
    that of unit vectors, √(2 − 2 · cosine), for a dense student (MAML-Align: ``TripletMarginLoss(margin=1.0, p=2)``).
    """

    kind: Literal["triplet"] = "triplet"
    margin: float = Field(0.2, ge=0)
    distance: Literal["score", "euclidean"] = "score"
    temperature: float = Field(1.0, gt=0)  # divides the distances, so that sums of cosines may have a margin of 1

    def per_entry(self, student_NM: "Tensor", positive_N: "Tensor") -> "Tensor":
        """[N] losses, as ``InfoNce.per_entry``; 0 where no negative is left."""
        positive_N1 = positive_N[:, None]
        scores_NM = self._leave_out(student_NM, positive_N1)
        counts_NM = scores_NM.isfinite().scatter(1, positive_N1, False)
        if self.distance == "euclidean":  # a passage that is left out keeps a finite distance, so that gradients are
            scores_NM = -(2 - 2 * scores_NM.clamp(min=-1)).clamp(min=LEAST_SQUARE).sqrt()
        behind_NM = (self.margin + (scores_NM - scores_NM.gather(1, positive_N1)) / self.temperature).relu()
        return behind_NM.masked_fill(~counts_NM, 0).sum(-1) / counts_NM.sum(-1).clamp(min=1)


class Cosine(Loss):
    """(cosine of two sentences − their gold score)², the gold score divided by 5, so that it is from 0 to 1 (Reimers
    and Gurevych 2019; sentence-transformers: ``CosineSimilarityLoss``). For dense students.

    ``pairs`` says in which languages the two sentences of a pair are: ``mono`` both in one, ``cross`` in two different
    ones, ``both`` in any two; drawn for each pair of a batch, every choice alike likely.
    """

    reads: ClassVar[Reads] = "pairs"
    kind: Literal["cosine"] = "cosine"
    pairs: PairLanguages = "both"

    def per_entry(self, cosine_N: "Tensor", gold_N: "Tensor") -> "Tensor":
        """[N] losses of pairs with these cosines and gold scores from 0 to 1."""
        return (cosine_N.float() - gold_N).square()


class TeacherVectors(Loss):
    """Draws a student's vector of a text, in whatever language it is read, to the teacher's vector of the original:
    1 − cosine (Reimers and Gurevych 2020, who take the squared distance), plus ``contrast`` times −log of that vector's
    share of the softmax over the teacher's vectors of all texts of the batch. For dense students.

    ``original`` is the share of texts that are read in the original language, which the student is not to forget.
    """

    reads: ClassVar[Reads] = "vectors"
    kind: Literal["vectors"] = "vectors"
    temperature: float = Field(0.05, gt=0)
    contrast: float = Field(1.0, ge=0)
    original: float = Field(0.15, ge=0, le=1)

    def per_entry(self, cosine_NM: "Tensor", own_N: "Tensor") -> "Tensor":
        """[N] losses of texts with these cosines to M vectors of the teacher; theirs is the one at ``own_N``."""
        own_N1, cosine_NM = own_N[:, None], cosine_NM.float()
        shares_NM = (cosine_NM / self.temperature).log_softmax(-1)
        return (1 - cosine_NM.gather(1, own_N1) - self.contrast * shares_NM.gather(1, own_N1))[:, 0]


DistillationLoss = KullbackLeibler | MeanSquaredError
ContrastiveLoss = InfoNce | Triplet
AnyLoss = Annotated[
    KullbackLeibler | MeanSquaredError | InfoNce | Triplet | Cosine | TeacherVectors, Field(discriminator="kind")
]


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
