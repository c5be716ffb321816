"""What a training leaves to read: its curves as tables and as a plot, and how far it is while it runs."""

import io
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from cluster.storage import Place

if TYPE_CHECKING:
    from pipelines.training.objectives.base import Samples

POINTS = 1000  # of the loss curve, each the mean of the steps since the one before
PROGRESS_SECONDS = {True: 1.0, False: 10.0}  # between two writes of progress.json: local, object store


Counts = dict[str, dict[str, int]]  # by data set and language


@dataclass
class Drawn:
    """What was drawn: steps by data set, queries skipped, and by data set and language questions, passages, relevant
    passages and the batches that hold a passage of that language (``batches_with``).
    ``samples`` is a digest of all samples, the same in whatever order and on however many workers they were drawn.
    ``steps`` are the data set and the languages of each step since the last ``joined``, on one worker."""

    batches: dict[str, int] = field(default_factory=dict)
    batches_with: Counts = field(default_factory=dict)
    skipped: int = 0
    passages: Counts = field(default_factory=dict)
    positives: Counts = field(default_factory=dict)
    samples: int = 0
    questions: Counts = field(default_factory=dict)
    steps: list[tuple[str, frozenset[str]]] = field(default_factory=list)

    @classmethod
    def nothing(cls, langs: Mapping[str, Sequence[str]]) -> "Drawn":
        """Zeros for each data set and its languages, so that what is never drawn can be seen."""
        first = cls(dict.fromkeys(langs, 0))
        for counts in (first.batches_with, first.passages, first.positives):
            counts |= {name: dict.fromkeys(of_name, 0) for name, of_name in langs.items()}
        return first

    def add(self, share: "Samples") -> None:
        """Count the share of a step that was taken."""
        passages = share.passages()
        one = Drawn({share.data: 1}, {}, share.skipped, {share.data: passages}, {share.data: share.positives()})
        one.samples, one.questions = share.digest(), {share.data: share.questions()}
        self.merge(one)
        self.steps.append((share.data, frozenset(passages)))

    @classmethod
    def joined(cls, parts: "Sequence[Drawn]") -> "Drawn":
        """What several workers drew in the same steps."""
        total = cls()
        for part in parts:
            total.merge(part)
        total.batches = dict(parts[0].batches)
        for step in zip(*(part.steps for part in parts), strict=True):
            langs = frozenset().union(*(langs for _, langs in step))
            total.merge(cls(batches_with={step[0][0]: dict.fromkeys(langs, 1)}))
        return total

    def merge(self, other: "Drawn") -> None:
        """Add what was drawn in other steps."""
        self.batches = _add(self.batches, other.batches)
        self.skipped += other.skipped
        self.samples = (self.samples + other.samples) % 2**64
        for kind in ("batches_with", "questions", "passages", "positives"):
            mine: Counts = getattr(self, kind)
            for name, counts in sorted(getattr(other, kind).items()):
                mine[name] = _add(mine.get(name, {}), counts)


def _add(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    """The sums of two counts by name, zeros among them."""
    return {name: one.get(name, 0) + other.get(name, 0) for name in sorted({*one, *other})}


@dataclass
class Records:
    """The curves so far. Travels in every checkpoint, so that a resumed training has the whole of them.

    ``losses`` holds (step, mean loss, learning rate, seconds), ``validations`` (step, value of ``measure``, seconds).
    ``overflows`` counts steps that were not taken since fp16 could not hold their gradients: a loss that is no number
    is one of these, and left out of the means. ``examples`` are the queries of each data set that may be drawn.
    """

    steps: int
    done: int = 0
    seconds: float = 0.0
    losses: list[tuple[int, float, float, float]] = field(default_factory=list)
    validations: list[tuple[int, float, float]] = field(default_factory=list)
    drawn: Drawn = field(default_factory=Drawn)
    examples: dict[str, int] = field(default_factory=dict)
    overflows: int = 0
    pending: list[float] = field(default_factory=list)
    measure: str = "nDCG@20"  # of the validations

    @staticmethod
    def parse(text: str) -> "Records":
        """Read what ``text`` wrote."""
        records = Records(**json.loads(text))
        records.drawn = Drawn(**records.drawn)  # type: ignore[arg-type]  # a dict until here
        return records

    def text(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    def step(self, loss: float, lr: float, seconds: float) -> None:
        """One more step is done. ``seconds`` are those of the whole training, of earlier runs too."""
        self.done, self.seconds = self.done + 1, round(seconds, 3)
        self.pending.append(loss)
        if self.done % max(1, self.steps // POINTS) == 0 or self.done == self.steps:
            finite = [value for value in self.pending if math.isfinite(value)]
            self.losses.append((self.done, sum(finite) / len(finite) if finite else math.nan, lr, self.seconds))
            self.pending = []

    def validation(self, score: float) -> None:
        """The student was measured after the last step."""
        self.validations.append((self.done, score, self.seconds))

    def count(self, drawn: Drawn) -> None:
        """Add what was drawn since the last time."""
        self.drawn.merge(drawn)

    def write(self, out: Place) -> None:
        """``losses.tsv``, ``validation.tsv`` and ``curves.png`` below ``out``."""
        losses = [f"{step}\t{loss:.6f}\t{lr:.4g}\t{seconds:.1f}" for step, loss, lr, seconds in self.losses]
        scores = [f"{step}\t{score:.4f}\t{seconds:.1f}" for step, score, seconds in self.validations]
        (out / "losses.tsv").write("\n".join(["step\tloss\tlr\tseconds", *losses, ""]).encode())
        (out / "validation.tsv").write("\n".join([f"step\t{self.measure}\tseconds", *scores, ""]).encode())
        (out / "curves.png").write(self._plot())

    def _plot(self) -> bytes:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 4), layout="constrained")
        FigureCanvasAgg(figure)
        axis: Any = figure.add_subplot()
        axis.plot([p[0] for p in self.losses], [p[1] for p in self.losses], color="tab:blue", linewidth=1)
        axis.set(xlabel="step", ylabel="loss (nats)")
        axis.yaxis.label.set_color("tab:blue")
        if self.validations:
            right = axis.twinx()
            right.plot([p[0] for p in self.validations], [p[1] for p in self.validations], "o-", color="tab:orange")
            right.set(ylabel=f"dev {self.measure}", ylim=(min([0.0, *(p[1] for p in self.validations)]), 1))
            right.yaxis.label.set_color("tab:orange")
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=120)
        return image.getvalue()


class ProgressFile:
    """Says in ``progress.json`` how far the training is, not more often than is cheap."""

    def __init__(self, out: Place):
        self.place = out / "progress.json"
        self.pause = PROGRESS_SECONDS[out.is_local]
        self.started, self.written, self.first = time.monotonic(), 0.0, 0

    def say(self, records: Records, now: bool = False) -> None:
        """Write the state, if it is time."""
        moment = time.monotonic()
        self.first = self.first or records.done
        if moment - self.written < self.pause and not now:
            return
        self.written = moment
        rate = (moment - self.started) / max(1, records.done - self.first)
        losses = records.pending or [loss for _, loss, *_ in records.losses]
        notes = [f"loss {losses[-1]:.4f}"] if losses else []
        if records.validations:
            notes.append(f"{records.measure} {records.validations[-1][1]:.3f}")
        left = round((records.steps - records.done) * rate, 1) if records.done > self.first else None
        said = {"done": records.done, "total": records.steps, "note": ", ".join(notes), "seconds_left": left}
        self.place.write(json.dumps(said).encode())

    def say_start(self) -> None:
        """Write that the workers start, in the place of what an attempt that was killed wrote last."""
        self.place.write(json.dumps({"note": "its workers start"}).encode())
