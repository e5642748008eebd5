"""Ports that nobody listens at, and servers that say one thing to everybody."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import BaseRequestHandler, TCPServer


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def serving(server: TCPServer) -> Iterator[None]:
    """Let a server answer in a thread of its own until the block ends."""
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def answering(status: int, body: bytes = b"") -> Iterator[str]:
    """``HOST:PORT`` of a server that gives every request one answer."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PATCH = do_DELETE = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Silence."""

    server = HTTPServer(("127.0.0.1", 0), Answers)
    with serving(server):
        yield f"127.0.0.1:{server.server_port}"


@contextmanager
def refusing() -> Iterator[tuple[str, list[bytes]]]:
    """``HOST:PORT`` of a server that hangs up after each first line, and those lines."""
    asked: list[bytes] = []

    class HangsUp(BaseRequestHandler):
        def handle(self) -> None:
            asked.append(self.request.recv(4_096).partition(b"\r\n")[0])

    server = TCPServer(("127.0.0.1", 0), HangsUp)
    with serving(server):
        yield f"127.0.0.1:{server.server_address[1]}", asked
