"""Make a virtual environment with fast-plaid: ``python tests/fast_plaid_environment.py DIRECTORY``.

It pins another torch than this project's and loads with no other: hence an environment of its own, of several
gigabytes, since that torch comes with CUDA. Tests and benchmarks find it by ``BABELRAY_FAST_PLAID_PYTHON``, the path of
its Python.
"""

import subprocess
import sys
from pathlib import Path

FAST_PLAID = "fast-plaid==1.7.*"


def main(directory: str) -> None:
    """Make the environment; a second call finds what is there."""
    venv = Path(directory).absolute()
    python = venv / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, FAST_PLAID], check=True)
    subprocess.run([str(python), "-c", "from fast_plaid.search import FastPlaid"], check=True)


if __name__ == "__main__":
    main(sys.argv[1])
