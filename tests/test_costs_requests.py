"""Requests to an object store: the formula of a plan against those that a store counted in a real run."""

import logging
import os
import re
from collections import Counter

import pytest

from cluster import executor
from cluster.component import Resources
from cluster.progress import Progress
from cluster.step import Step
from cluster.storage import Place
from conftest import free_port
from pipelines.costs.amounts import Amount
from pipelines.costs.storage import requests_of
from pipelines.tables import DOCS
from works import Count, Numbers, Shout, Upper


class Requests(logging.Handler):
    """Counts the lines that the server writes, one for each request."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def emit(self, record):
        if found := re.search(r"(GET|HEAD|PUT|POST|DELETE) (/\S*)", record.getMessage()):
            reads = found[1] in ("GET", "HEAD") and "list-type" not in found[2]
            self.counts["GET" if reads else "PUT"] += found[1] != "DELETE"  # which is free


@pytest.fixture
def store():
    """An object store on loopback, and what it counts."""
    import boto3
    from moto.server import ThreadedMotoServer

    port = free_port()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=True)
    server.start()
    endpoint = f"http://127.0.0.1:{port}"
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=endpoint, **keys).create_bucket(Bucket="counted")
    log, counted = logging.getLogger("werkzeug"), Requests()
    before = log.level
    log.setLevel(logging.INFO)
    log.addHandler(counted)
    yield f"s3://counted?endpoint_override={endpoint}&region=us-east-1&access_key=test&secret_key=test", counted
    log.removeHandler(counted)
    log.setLevel(before)
    server.stop()


@pytest.mark.slow
def test_requests_of_a_part_are_those_that_a_store_counts(store, tmp_path) -> None:
    """Steps of 4 and of 16 parts: their difference is twelve parts, whatever a step itself asks."""
    uri, counted = store
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    found = {}
    for parts in (4, 16):
        root = Place.of(uri) / f"run-{parts}"
        numbers = Step("numbers", Count, Numbers(parts=parts), table=DOCS)
        executor.run([numbers], root, Progress())
        counted.counts.clear()
        upper = Step("upper", Upper, Shout(log=str(tmp_path / "log")), {"docs": numbers}, table=DOCS, rows=("docs",),
                     resources=Resources(actors=1))  # fmt: skip
        executor.run([upper], root, Progress())
        found[parts] = dict(counted.counts)
        said = requests_of(upper, Amount(rows=5 * parts, files=parts, tasks=parts), 1000.0)
        assert said.puts == pytest.approx(found[parts]["PUT"], rel=0.25), found
        assert said.gets == pytest.approx(found[parts]["GET"], rel=0.25), found
