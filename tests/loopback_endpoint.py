"""A process that is an OpenAI-compatible endpoint for translation, on loopback: it knows its translations by heart.

    python loopback_endpoint.py PORT ANSWERS LOG

ANSWERS is JSON, ``{"German": {"an English text": "its translation"}}``. LOG gets a byte for each answer.
"""

import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Server(ThreadingHTTPServer):
    """Serves until it is killed."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int, answers: Path, log: Path) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.answers: dict[str, dict[str, str]] = json.loads(answers.read_text("utf-8"))
        self.log = log.open("ab", buffering=0)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that were killed; other errors are said by those who get no answer."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][0]["content"]
        order, _, text = asked.partition("\n\n")
        named = re.search(r"from \w+ to (\w+)\.", order)
        answer = self.server.answers[named[1]][text] if named else "Hello"
        choice = {"message": {"content": answer}, "finish_reason": "stop"}
        data = json.dumps({"choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.server.log.write(b".")


if __name__ == "__main__":
    Server(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])).serve_forever()
