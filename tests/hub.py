"""A model hub on loopback that speaks the protocol of huggingface.co, and a process that knows no other.

Weights are redirected to another host, as the hub redirects them to its storage.
"""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_Kx7secretOfThisTest"


@dataclass
class Repository:
    """A model: its files by commit, its branches. A gated one gives files to holders of the token alone."""

    commits: dict[str, dict[str, bytes]]
    refs: dict[str, str]
    gated: bool = False


@dataclass
class Hub:
    """``faults`` are what happens to the next GET requests of a file, by its name: a status, or "cut", which closes the
    connection after half of what was asked. ``asked`` are method, path and headers of all requests."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    faults: dict[str, list[int | str]] = field(default_factory=dict)
    asked: list[tuple[str, str, Mapping[str, str]]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def paths(self, method: str, part: str) -> list[str]:
        return [path for asked, path, _ in self.asked if asked == method and part in path]


@contextmanager
def serve_hub() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append((self.command, path, {name.lower(): value for name, value in self.headers.items()}))
        words = path.strip("/").split("/")
        if words[0] == "storage":
            return self._send_file(words[1], self._find_content(words[1]), words[2], with_body)
        is_api = words[:2] == ["api", "models"]
        name, rest = "/".join(words[2:4] if is_api else words[:2]), words[4:] if is_api else words[2:]
        repository = self.hub.repositories.get(name)
        has_token = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if self.headers.get("Authorization") and not has_token:
            return self._refuse(401, "", "Invalid credentials in Authorization header")
        if repository is None:  # the hub does not tell strangers what there is
            return (
                self._refuse(404, "RepoNotFound")
                if has_token
                else self._refuse(401, "", "Invalid username or password.")
            )
        reads_files = not is_api or rest[:1] == ["tree"]
        if repository.gated and reads_files and not has_token:
            return self._refuse(401, "GatedRepo", f"Access to model {name} is restricted.")
        revision = rest[1] if len(rest) > 1 else "main"
        commit = repository.refs.get(revision, revision)
        files = repository.commits.get(commit)
        if files is None:
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if is_api:
            return self._send_json(_describe(name, commit, files, rest))
        file = "/".join(rest[2:])
        if file not in files:
            return self._refuse(404, "EntryNotFound", "Entry not found")
        return self._resolve(file, files[file], commit, with_body)

    def _resolve(self, file: str, content: bytes, commit: str, with_body: bool) -> None:
        digest = hashlib.sha256(content).hexdigest()
        if not file.endswith(".safetensors"):
            return self._send_file(digest, content, file, with_body, {"X-Repo-Commit": commit})
        self.send_response(302)
        headers = {
            "Location": f"http://localhost:{self.hub.port}/storage/{digest}/{file}",
            "X-Repo-Commit": commit,
            "X-Linked-Etag": f'"{digest}"',
            "X-Linked-Size": str(len(content)),
            "Content-Length": "0",
        }
        for header in headers.items():
            self.send_header(*header)
        return self.end_headers()

    def _send_file(
        self, digest: str, content: bytes, file: str, with_body: bool, headers: Mapping[str, str] | None = None
    ) -> None:
        faults = self.hub.faults.get(file, []) if with_body else []
        fault = faults.pop(0) if faults else None
        if isinstance(fault, int):
            return self._refuse(fault, "", "Come again", {"Retry-After": "0"} if fault == 429 else {})
        start = int(self.headers["Range"].removeprefix("bytes=").partition("-")[0]) if self.headers.get("Range") else 0
        part = content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        for header in {"ETag": f'"{digest}"', "Accept-Ranges": "bytes", **(headers or {})}.items():
            self.send_header(*header)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if with_body:
            self.wfile.write(part[: len(part) // 2] if fault == "cut" else part)
        self.close_connection = fault == "cut" or self.close_connection
        return None

    def _send_json(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, status: int, code: str, message: str = "", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for header in {
            "X-Error-Code": code,
            "X-Error-Message": message,
            **(headers or {}),
            "Content-Length": "0",
        }.items():
            if header[1]:
                self.send_header(*header)
        self.end_headers()

    def _find_content(self, digest: str) -> bytes:
        files = [files for repository in self.hub.repositories.values() for files in repository.commits.values()]
        contents = (content for of_commit in files for content in of_commit.values())
        return next(content for content in contents if hashlib.sha256(content).hexdigest() == digest)


def _describe(name: str, commit: str, files: Mapping[str, bytes], rest: list[str]) -> Any:
    """What the hub's interface says of a model, or of the files of a revision."""
    if rest[:1] == ["tree"]:
        return [_describe_file(file, content) for file, content in files.items()]
    return {
        "_id": "0",
        "id": name,
        "sha": commit,
        "private": False,
        "siblings": [{"rfilename": file} for file in files],
    }


def _describe_file(file: str, content: bytes) -> dict[str, Any]:
    described: dict[str, Any] = {
        "type": "file",
        "path": file,
        "size": len(content),
        "oid": hashlib.sha1(content).hexdigest(),
    }
    if file.endswith(".safetensors"):
        described["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return described


@contextmanager
def another_process(hub: Hub, home: Path, **environment: str) -> Iterator[Callable[..., Any]]:
    """Call functions in a process that knows this hub alone: the library reads its environment when it is imported."""
    values = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    with ProcessPoolExecutor(1, get_context("spawn"), _set, ({**values, **environment},)) as pool:
        yield lambda function, *arguments: pool.submit(function, *arguments).result(timeout=120)


def _set(environment: Mapping[str, str]) -> None:
    os.environ.update(environment)
