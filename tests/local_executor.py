"""Steps done in this process, one after another: for tests of works, to which it does not matter where they run.

Tasks, tables, receipts and manifests are those of ``cluster.executor``, and the artifacts the same. What is left out is
Ray, the leases of other drivers, and going on where a killed run was; tests/test_executor.py has those.
"""

from collections.abc import Sequence

from cluster import executor
from cluster.artifact import MANIFEST, Artifact
from cluster.lease import Fence
from cluster.receipt import RECEIPTS
from cluster.step import Step
from cluster.storage import Place
from cluster.tasks import task_of
from cluster.waves import describe
from shards import local_fan_out


def run_here(targets: Sequence[Step], root: Place) -> list[Artifact]:
    """Make the artifacts of ``targets`` and all that they need; see ``cluster.executor.run``."""
    for step in executor.find_missing(targets, root):
        out = root / step.id
        if step.table:
            task = task_of(step, root, Fence(out, 0))
            work = task.build()
            manifest = describe(step, [task.do(work, unit) for unit in range(task.units)], None, None)
        else:
            facts = step.work(step.config, step.input_artifacts(root), out, local_fan_out)
            manifest = describe(step, [], facts, 0.0)
        (out / RECEIPTS).delete()
        (out / MANIFEST).write(manifest.model_dump_json().encode())
    return [step.artifact(root) for step in targets]
