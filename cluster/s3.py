"""Clients for object stores: pyarrow's file system for reading and listing, boto3's for writing.

boto3 writes because pyarrow completes an upload that is cut short by an error, and leaves a truncated object under the
final name. boto3 shows an object only when all of it has arrived, and writes one only where none is yet.

The query of an ``s3://`` URI gives options: ``endpoint_override``, ``region``, ``scheme``, ``access_key``,
``secret_key``. What is not given comes from the environment, the profile or the instance's role.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from pyarrow import fs

from cluster.errors import StorageError

CHECK = (
    "the bucket's name, its region and the endpoint, and that the AWS profile, the AWS_ variables or the instance's "
    "role may read, write, list and delete there"
)
ATTEMPTS = 4  # of one request by the client itself, before cluster.retry waits longer
OPTIONS = frozenset({"endpoint_override", "region", "scheme", "access_key", "secret_key"})


@lru_cache(maxsize=16)
def filesystem(query: str) -> fs.FileSystem:
    """pyarrow's file system for the options of a URI's query."""
    options = _options(query)
    return fs.S3FileSystem(
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS), background_writes=True, **options
    )


def upload(query: str, path: str, source: Path) -> None:
    """Write an object from a local file. Nothing is to be seen of it before all has arrived: an error, an interrupt or
    a kill on the way leaves what was there."""
    bucket, _, key = path.partition("/")
    with source.open("rb") as file:
        _client(query).upload_fileobj(file, bucket, key)


def put(query: str, path: str, data: bytes, only_new: bool = False) -> bool:
    """Write a small object, or only where there is none; returns whether it was written."""
    from botocore.exceptions import ClientError

    bucket, _, key = path.partition("/")
    try:
        _client(query).put_object(Bucket=bucket, Key=key, Body=data, **({"IfNoneMatch": "*"} if only_new else {}))
    except ClientError as error:
        if only_new and error.response["ResponseMetadata"]["HTTPStatusCode"] == 412:  # PreconditionFailed
            return False
        raise
    return True


def _options(query: str) -> dict[str, str]:
    options = dict(parse_qsl(query))
    if unknown := set(options) - OPTIONS:
        raise StorageError(f"unknown option {sorted(unknown)} in an s3:// URI; known are {sorted(OPTIONS)}")
    endpoint = options.get("endpoint_override", "")
    if endpoint.startswith("http://"):
        options["scheme"], options["endpoint_override"] = "http", endpoint.removeprefix("http://")
    return options


@lru_cache(maxsize=16)
def _client(query: str) -> Any:
    """boto3's client for the same store, with the same region and the same keys as ``filesystem``."""
    import boto3
    from botocore.config import Config

    options = _options(query)
    address = options.get("endpoint_override", "").rpartition("://")[2]
    return boto3.session.Session().client(
        "s3",
        endpoint_url=f"{options.get('scheme', 'https')}://{address}" if address else None,
        region_name=filesystem(query).region,
        aws_access_key_id=options.get("access_key"),
        aws_secret_access_key=options.get("secret_key"),
        config=Config(retries={"max_attempts": ATTEMPTS, "mode": "standard"}),
    )
