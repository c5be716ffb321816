"""The meta-learners on a network of two layers in float64, against central differences, ``torch.func`` through the
unrolled loop, a plain loop over deep copies, and the formulas of MAML-Align written down again."""

import itertools
from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad
from torch.nn.functional import kl_div, normalize
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from pipelines.training.losses import Triplet
from pipelines.training.meta.config import Meta
from pipelines.training.meta.learners import learn

pytestmark = pytest.mark.usefixtures("one_thread")

ALIGN = ("el_el-el_ar-el_ar,el,hi",)
STEPS, RATE = 3, 0.3  # so large that orders and inner loops differ


class Network(nn.Module):
    """Unit vectors of points; ``unused`` has no effect."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 4))
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, points):
        return normalize(self.layers(points), dim=-1)


class Points:
    """Triplets [N, 3, 5] of points: question, relevant, negative; see ``learners.SetLoss``."""

    def __init__(self, network):
        self.network = network

    def scores(self, weights, examples):
        vectors = functional_call(self.network, dict(weights), (examples,))
        return torch.einsum("nd,nwd->nw", vectors[:, 0], vectors[:, 1:])

    def loss(self, weights, examples):
        return TRIPLET.per_entry(self.scores(weights, examples).double(), torch.zeros(len(examples), dtype=int)).mean()

    def distil(self, teacher, student, examples):
        taught = self.scores(teacher, examples).detach().log_softmax(-1)
        return kl_div(self.scores(student, examples).log_softmax(-1), taught, log_target=True, reduction="batchmean")


class Exact(Triplet):
    """The loss in the precision of its scores: the one of training computes in float32."""

    def _leave_out(self, student_NM, positive_N1):
        return student_NM


TRIPLET = Exact(margin=1.0, distance="euclidean", in_batch=False)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network().double()


@pytest.fixture
def sets():
    random = torch.Generator().manual_seed(1)
    return [torch.randn(size, 3, 5, dtype=torch.float64, generator=random) for size in (4, 3, 5)]


def meta_of(**changes):
    return Meta(tasks=ALIGN, inner_steps=STEPS, inner_lr=RATE, **{"algorithm": "maml_align", **changes})


def leaves_of(network):
    return {name: p.detach().clone().requires_grad_() for name, p in network.named_parameters()}


def flat(gradient):
    return torch.cat([part.flatten() for part in gradient])


def learnt(network, sets, meta):
    """The value of what is minimised for one task and its gradient, the square of the difference included."""
    outcome = learn(meta, Points(network), leaves_of(network), sets)
    value, gradient = outcome.loss, flat(outcome.gradient)
    if outcome.difference is not None:
        value = value + meta.kd_weight * outcome.difference**2
        gradient = gradient + 2 * meta.kd_weight * outcome.difference * flat(outcome.difference_gradient)
    return float(value), gradient


def formula(points, weights, sets, meta, slope):
    """What is minimised for one task, as papers write it; ``slope`` gives the gradient that an inner step follows."""

    def adapted(support):
        moved = weights
        for _ in range(STEPS):
            steps = slope(moved, support)
            moved = {name: value - RATE * steps[name] for name, value in moved.items()}
        return moved

    s0, q0, q1 = sets
    if meta.algorithm == "finetune":
        return sum(points.loss(weights, part) for part in sets) / 3
    phi = adapted(s0)
    if meta.algorithm == "maml":
        return (points.loss(phi, q0) + points.loss(phi, q1)) / 2
    theta = adapted(q0) if meta.student_adapts else weights
    tasks = (points.loss(phi, q0) + points.loss(theta, q1)) / 2
    if meta.kd_target == "loss":
        return tasks + meta.kd_weight * (points.loss(phi, q0) - points.loss(theta, q0)) ** 2
    return tasks + meta.kd_weight * points.distil(phi, theta, q0)


SECOND = [
    {"algorithm": "finetune"},
    {"algorithm": "maml"},
    {},
    {"student_adapts": True},
    {"kd_target": "logits"},
    {"kd_target": "logits", "student_adapts": True},
]


@pytest.mark.parametrize("changes", SECOND)
def test_second_order_equals_torch_func_through_the_unrolled_loop(network, sets, changes):
    meta, points = meta_of(order=2, kd_weight=0.7, **changes), Points(network)

    def total(weights):
        return formula(points, weights, sets, meta, grad(points.loss))

    weights = {name: p.detach() for name, p in network.named_parameters()}
    expected = grad(total)(weights)
    value, found = learnt(network, sets, meta)
    assert value == pytest.approx(float(total(weights)), rel=1e-12)
    torch.testing.assert_close(found, flat(expected.values()), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("changes", [change for change in SECOND if "kd_target" not in change])
def test_second_order_equals_central_differences(network, sets, changes):
    """Of the value alone, so without what holds the teacher fixed. Along ten directions: the slope of each."""
    meta, step = meta_of(order=2, kd_weight=0.7, **changes), 1e-5
    _, found = learnt(network, sets, meta)
    start, random = parameters_to_vector(network.parameters()).detach(), torch.Generator().manual_seed(2)
    for _ in range(10):
        direction = normalize(torch.randn(len(start), dtype=torch.float64, generator=random), dim=0)
        sides = []
        for sign in (1, -1):
            vector_to_parameters(start + sign * step * direction, network.parameters())
            sides.append(learnt(network, sets, meta)[0])
        slope = (sides[0] - sides[1]) / (2 * step)
        assert abs(slope - float(direction @ found)) < 1e-4 * float(found.norm())


def adapted_copy(network, support):
    """A deep copy of a network after plain gradient descent on a set."""
    copy = deepcopy(network)
    descent = torch.optim.SGD(copy.parameters(), lr=RATE)
    for _ in range(STEPS):
        descent.zero_grad()
        loss_of(copy, support).backward()
        descent.step()
    return copy


def loss_of(network, examples):
    question, relevant, negative = network(examples).unbind(1)
    return nn.TripletMarginLoss(margin=1.0, p=2, eps=0)(question, relevant, negative)


def slope_of(network, loss):
    network.zero_grad()
    loss(network).backward()
    return flat([torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters()])


def test_first_order_equals_a_loop_over_deep_copies(network, sets):
    s0, *queries = sets
    value, found = learnt(network, sets, meta_of(algorithm="maml"))
    copy = adapted_copy(network, s0)
    expected = slope_of(copy, lambda moved: sum(loss_of(moved, part) for part in queries) / 2)
    assert value == pytest.approx(sum(loss_of(copy, part).item() for part in queries) / 2, rel=1e-12)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    second = learnt(network, sets, meta_of(algorithm="maml", order=2))[1]
    assert float((second - found).norm() / found.norm()) > 0.01  # so that the orders differ


@pytest.mark.parametrize("student_adapts", [False, True])
def test_maml_align_equals_the_formulas_of_the_code_over_a_batch_of_tasks(network, sets, student_adapts):
    """L = (LQ0 + LQ1) / (2 · tasks) + λ · (LQ0 − LS1)², each summed over the tasks, first order."""
    tasks = [sets, [part.flip(0) * 0.7 for part in sets]]
    teacher_q0, student_q0, student_q1 = [], [], []
    slopes = [[], [], []]
    for s0, q0, q1 in tasks:
        phi = adapted_copy(network, s0)
        theta = adapted_copy(network, q0) if student_adapts else network
        for losses, slope, (copy, part) in zip(
            (teacher_q0, student_q0, student_q1), slopes, ((phi, q0), (theta, q0), (theta, q1)), strict=True
        ):
            losses.append(loss_of(copy, part).item())
            slope.append(slope_of(copy, lambda moved, part=part: loss_of(moved, part)))
    lq0, ls1, lq1 = sum(teacher_q0), sum(student_q0), sum(student_q1)
    of_lq0, of_ls1, of_lq1 = (sum(slope) for slope in slopes)
    expected = (lq0 + lq1) / (2 * 2) + 0.5 * (lq0 - ls1) ** 2
    expected_slope = (of_lq0 + of_lq1) / 4 + 2 * 0.5 * (lq0 - ls1) * (of_lq0 - of_ls1)

    meta = meta_of(student_adapts=student_adapts)
    outcomes = [learn(meta, Points(network), leaves_of(network), task) for task in tasks]
    apart = sum(o.difference for o in outcomes)
    value = sum(o.loss for o in outcomes) / 2 + meta.kd_weight * apart**2
    found = sum(flat(o.gradient) for o in outcomes) / 2
    found = found + 2 * meta.kd_weight * apart * sum(flat(o.difference_gradient) for o in outcomes)
    assert float(value) == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(found, expected_slope, rtol=1e-9, atol=1e-12)
    assert abs(lq0 - ls1) > 1e-3  # so that the distillation counts


@pytest.mark.parametrize("order", [1, 2])
def test_without_distillation_maml_align_is_two_mamls(network, sets, order):
    """λ = 0: with a student that adapts the mean of two MAMLs, S0 → Q0 and Q0 → Q1; without, MAML on Q0 and the plain
    loss of Q1."""
    s0, q0, q1 = sets

    def maml(*of):
        return learnt(network, of, meta_of(algorithm="maml", order=order))

    of_teacher, of_student = maml(s0, q0), maml(q0, q1)
    plain = learnt(network, [q1], meta_of(algorithm="finetune"))
    for adapts, other in ((True, of_student), (False, plain)):
        value, slope = learnt(network, sets, meta_of(kd_weight=0, student_adapts=adapts, order=order))
        assert value == pytest.approx((of_teacher[0] + other[0]) / 2, rel=1e-12)
        torch.testing.assert_close(slope, (of_teacher[1] + other[1]) / 2, rtol=1e-9, atol=1e-12)


def test_maml_over_two_query_sets_is_the_mean_over_their_union(network, sets):
    """One adaptation, both query sets: of equal size, their union is one set."""
    s0, q0, _ = sets
    both = learnt(network, [s0, q0, -q0], meta_of(algorithm="maml"))
    union = learnt(network, [s0, torch.cat([q0, -q0])], meta_of(algorithm="maml"))
    assert both[0] == pytest.approx(union[0], rel=1e-12)
    torch.testing.assert_close(both[1], union[1], rtol=1e-9, atol=1e-12)


def test_each_setting_gives_another_gradient(network, sets):
    """No two forms are the same by mistake."""
    forms = [
        {},
        {"student_adapts": True},
        {"order": 2},
        {"kd_target": "logits"},
        {"kd_weight": 0},
        {"algorithm": "maml"},
    ]
    found = [learnt(network, sets, meta_of(**form))[1] for form in [*forms, {"algorithm": "finetune"}]]
    for one, other in itertools.combinations(found, 2):
        assert float((one - other).norm() / one.norm()) > 1e-3
