"""Fixtures that more than one file needs: shared data, an object store on loopback, a small Ray."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

import cluster  # noqa: F401  # sets how threads wait, before numpy is loaded

if TYPE_CHECKING:
    from serving_apps import Server

os.environ["RAY_AUTH_MODE"] = "disabled"  # ray.init() turns token authentication on where this is not said
os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
os.environ["PYTHONPATH"] = str(Path(__file__).parent)  # Ray's workers import tests/works.py too
os.environ["MPLBACKEND"] = "Agg"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
settings.register_profile("any machine", deadline=None)  # a busy one takes longer than 0.2 s for an example
settings.load_profile("any machine")


# Modules whose tests start Ray, or processes that do. Those of the served systems stand last: their Serve, which lives
# until the end, slows down what runs after it.
START_RAY = (
    "test_cli", "test_executor", "test_failures", "test_new", "test_server_process", "test_side_by_side", "test_swap",
    "test_training", "test_page", "test_serving",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that start Ray first, since they take longest and others run beside them; in one process, last."""
    others = len(START_RAY) if "PYTEST_XDIST_WORKER" in os.environ else -1
    items.sort(key=lambda item: START_RAY.index(item.path.stem) if item.path.stem in START_RAY else others)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Let one process of ``make test`` run all tests that start Ray, since two Rays at once are slow to start on two
    cores, and give the others out by module."""
    from xdist.scheduler import LoadScopeScheduling

    class OneRay(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            name = Path(nodeid.partition("::")[0]).stem
            return "ray" if name in START_RAY else name

    return OneRay(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what would begin after the time that BABELRAY_TESTS_UNTIL names, in seconds since 1970."""
    until = os.environ.get("BABELRAY_TESTS_UNTIL")
    if until and time.time() > float(until):
        pytest.skip("no time left")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Node caches of this session alone."""
    os.environ["BABELRAY_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    del os.environ["BABELRAY_CACHE"]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The directory of openly licensed collections beside the repository; the test is skipped without it."""
    path = Path(__file__).parents[2] / "shared" / "data"
    if not path.is_dir():
        pytest.skip("needs the collections in ../shared/data")
    return path


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture(scope="session")
def s3_root() -> Iterator[str]:
    """``s3://`` URI of an empty bucket on a moto server; join names before the query string with ``Place``."""
    import boto3
    from moto.server import ThreadedMotoServer

    port = free_port()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    endpoint = f"http://127.0.0.1:{port}"
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=endpoint, **keys).create_bucket(Bucket="babelray")
    yield f"s3://babelray?endpoint_override={endpoint}&region=us-east-1&access_key=test&secret_key=test"
    server.stop()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Server]":
    """Small systems behind one Ray Serve, for all tests over HTTP."""
    import serving_apps

    with serving_apps.serve_systems(tmp_path_factory.mktemp("served")) as server:
        yield server


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Two threads are slower than one on small matrices, most of all on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
