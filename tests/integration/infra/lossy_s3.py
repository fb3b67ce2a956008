"""A proxy in front of S3 that carries out a request and then loses the answer, ignores conditions, or has no bucket."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import urllib3

NO_BUCKET = b"<Error><Code>NoSuchBucket</Code><Message>The specified bucket does not exist</Message></Error>"
DROPPED_HEADERS = {"transfer-encoding", "connection"}


class LossyServer(ThreadingHTTPServer):
    """`lose` answers to PUT are dropped after the request was carried out; `without_bucket` requests find none."""

    daemon_threads = True

    def __init__(self, behind: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = behind
        self.pool = urllib3.PoolManager(retries=False, timeout=10)
        self.lose = 0
        self.without_bucket = 0
        self.conditional = True

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: LossyServer
    protocol_version = "HTTP/1.1"

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.command == "PUT" and not self.server.conditional:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.server.without_bucket > 0:
            self.server.without_bucket -= 1
            self.send_response(404)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(NO_BUCKET)))
            self.end_headers()
            self.wfile.write(NO_BUCKET)
            return
        # The Host header stays as the client signed it.
        answer = self.server.pool.request(
            self.command, f"http://{self.server.behind}{self.path}", body=body, headers=dict(self.headers.items())
        )
        if self.command == "PUT" and self.server.lose > 0:
            self.server.lose -= 1
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in DROPPED_HEADERS | {"content-length"}:
                self.send_header(name, value)
        length = answer.headers.get("content-length", "0") if self.command == "HEAD" else str(len(answer.data))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.data)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _forward  # noqa: N815 — http.server's names

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def lossy(behind: str) -> Iterator[LossyServer]:
    """Run the proxy while the block runs."""
    server = LossyServer(behind)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        server.pool.clear()
