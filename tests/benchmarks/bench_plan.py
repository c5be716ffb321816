"""How true a plan is: XQuAD calibrated on a tenth of its training questions, then run as a whole.

    python tests/benchmarks/bench_plan.py [--source DIR] [--root DIR]

A root that has a ``rates.json`` is not calibrated again. Prints, for each pool of steps, the seconds that `plan` said
and those that `run` took, and marks those that took more than 2 s and are off by more than 25 %. Exits with an error
where the whole run is.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
WITHIN, SHORT_S = 0.25, 2.0


def babelray(*words: str) -> str:
    """What a verb prints, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", *words], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, check=True
    )
    return done.stdout


def run_and_note(sets: list[str]) -> None:
    """Run the recipe, and print when each step began and ended."""
    from cluster import executor
    from pipelines.costs.fit import TimedProgress
    from pipelines.verbs import load_plan

    plan, root = load_plan("xquad", sets)
    progress = TimedProgress()
    executor.run(plan.targets, root, progress)
    print(json.dumps({"began": progress.began, "ended": progress.ended}))


def compare(turns: list[dict[str, object]], noted: dict[str, dict[str, float]]) -> None:
    """Print a line per pool."""
    for turn in turns:
        steps = [step for step in turn["steps"] if step in noted["ended"]]
        said = turn["end"] - turn["start"]
        took = max(noted["ended"][s] for s in steps) - min(noted["began"][s] for s in steps)
        is_off = took > SHORT_S and abs(said - took) > WITHIN * took
        name = steps[0].partition("@")[0] + (f" and {len(steps) - 1} more" if len(steps) > 1 else "")
        print(f"{name:40} said {said:7.1f} s   took {took:7.1f} s   {'OFF' if is_off else ''}")


def main() -> None:
    """Calibrate, plan, run, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default=str(REPOSITORY.parent / "shared" / "data" / "xquad"))
    parser.add_argument("--root")
    parser.add_argument("--note", nargs="*")
    given = parser.parse_args()
    if given.note:
        run_and_note(given.note)
        return
    with tempfile.TemporaryDirectory() as directory:
        os.environ["BABELRAY_CACHE"] = f"{directory}/cache"
        sets = [f"source.path={given.source}", f"root={given.root or directory + '/root'}"]
        words = [word for value in sets for word in ("--set", value)]
        before = json.loads(babelray("plan", "xquad", "--json", *words))
        questions = max(s["rows"] for s in before["steps"] if s["step"].startswith("queries-en@"))
        is_measured = given.root and (Path(given.root) / "rates.json").exists()
        first = [] if is_measured else ["--calibrate", str(questions // 10)]
        calibrated = json.loads(babelray("plan", "xquad", "--json", *first, *words))
        started = time.monotonic()
        command = [sys.executable, __file__, "--note", *sets]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
        took = time.monotonic() - started
        noted = json.loads(done.stdout.splitlines()[-1])
    compare(calibrated["turns"], noted)
    said = calibrated["total"]["seconds"]
    first, last = min(noted["began"].values()), max(noted["ended"].values())
    print(f"calibrated on {questions // 10} of {questions} questions")
    print(f"first step to last: said {said:.1f} s, took {last - first:.1f} s; the process took {took:.1f} s")
    if abs(said - (last - first)) > WITHIN * (last - first):
        raise SystemExit(f"off by more than {WITHIN:.0%}")


if __name__ == "__main__":
    main()
