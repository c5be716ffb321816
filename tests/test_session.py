"""What the workers of a run get of its environment, and how many fit before Ray is started."""

import os
import subprocess
import sys

from cluster.session import environment_of_workers


def test_workers_with_memory_fill_this_machine_before_ray_is_started() -> None:
    code = (
        "import sys; from functools import partial; from cluster import session\n"
        "from cluster.capacity import Capacity; from cluster.component import Resources\n"
        "grant = Capacity(partial(session.capacity, False)).take(Resources(cpus=0.25, memory_gb=1), 1, 3)\n"
        "print(grant.actors, 'ray' in sys.modules)"
    )
    env = {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.check_output([sys.executable, "-c", code], env=env, text=True).split() == ["3", "False"]


STARTED = """
import os
from cluster import session
from process_memory import find_memory

session.connect(with_data=False)
commands = " ".join(process for process in find_memory(os.getpid()) if not process.startswith(f"{os.getpid()} "))
print([name for name in ("raylet", "monitor.py") if name in commands])
"""


def test_a_ray_of_our_own_starts_neither_autoscaler_nor_reader_of_logs() -> None:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    printed = subprocess.check_output([sys.executable, "-c", STARTED], env=env, text=True)
    assert printed.splitlines()[-1] == "['raylet']"


def test_workers_get_places_and_no_keys() -> None:
    given = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9000",
        "AWS_PROFILE": "search",
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SESSION_TOKEN": "token",
        "AZURE_STORAGE_ACCOUNT_NAME": "mine",
        "AZURE_STORAGE_ACCOUNT_KEY": "secret",
        "GOOGLE_CLOUD_PROJECT": "mine",
        "GOOGLE_APPLICATION_CREDENTIALS": "/home/me/key.json",
        "HF_HOME": "/models",
        "HF_TOKEN": "token",
        "BABELRAY_CACHE": "/cache",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318",
        "OTEL_EXPORTER_OTLP_HEADERS": "api-key=secret",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "api-key=secret",
        "PATH": "/bin",
    }
    assert environment_of_workers(given) == {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9000",
        "AWS_PROFILE": "search",
        "AZURE_STORAGE_ACCOUNT_NAME": "mine",
        "GOOGLE_CLOUD_PROJECT": "mine",
        "HF_HOME": "/models",
        "BABELRAY_CACHE": "/cache",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_WAIT_POLICY": "PASSIVE",
        "OPENBLAS_THREAD_TIMEOUT": "4",
    }
