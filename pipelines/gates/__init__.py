"""Quality gates: what a translation must pass before anything is made of it.

``Gates`` is the recipe's table ``[gates]``; ``judge`` is a pure function of a source and its translation; ``Gate`` is
the step's work. The lengths to expect and the defaults were learnt from human translations:
``tests/benchmarks/bench_gates.py`` learns them, and reports on others how many human translations fail and how many
damaged ones are caught.
"""

from pipelines.gates.config import GateConfig, Gates
from pipelines.gates.judge import judge
from pipelines.gates.work import Gate

__all__ = ["Gate", "GateConfig", "Gates", "judge"]
