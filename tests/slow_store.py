"""A proxy before an object store on loopback that sends on slowly, so that an upload can be caught in the middle."""

import socket
import threading
import time
from contextlib import suppress
from types import TracebackType
from urllib.parse import parse_qs, urlsplit

CHUNK = 1 << 16


class SlowProxy:
    """Passes bytes to the server at about ``rate`` bytes a second; ``sent`` counts them. ``cutting`` ends each
    connection in the middle."""

    def __init__(self, root: str, rate: int):
        self.endpoint = parse_qs(urlsplit(root).query)["endpoint_override"][0]
        self.rate, self.sent, self.cutting = rate, 0, False
        self.server = socket.create_server(("127.0.0.1", 0))
        self.root = root.replace(self.endpoint, f"http://127.0.0.1:{self.server.getsockname()[1]}")

    def __enter__(self) -> "SlowProxy":
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.server.close()

    def _serve(self) -> None:
        address = urlsplit(self.endpoint)
        while True:
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            upstream = socket.create_connection((address.hostname, address.port))
            threading.Thread(target=self._pass_on, args=(client, upstream, True), daemon=True).start()
            threading.Thread(target=self._pass_on, args=(upstream, client, False), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, slowly: bool) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK):
                target.sendall(data)
                if slowly:
                    self.sent += len(data)
                    time.sleep(len(data) / self.rate)
                    if self.cutting and self.sent > CHUNK:
                        break
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
