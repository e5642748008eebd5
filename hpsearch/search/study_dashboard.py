"""Server of optuna-dashboard for the study of a search, on this machine only.

It shows a copy of the study in memory, which is made again as the study grows, so nothing that is
clicked there changes the search.
"""

import hmac
import secrets
import socketserver
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import InMemoryStorage

from hpsearch.errors import UserError
from hpsearch.search.search_context import SearchContext
from hpsearch.search.study import read_study
from hpsearch.search.trial_queue import started_trials

COOKIE, TOKEN_PARAMETER = "hpsearch-dashboard", "token"
REFRESH_S = 10.0
"""Minimum seconds between two copies of a study."""
FIRST_PAGE = "dashboard/studies/0"
WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def copy_study(context: SearchContext) -> InMemoryStorage:
    """Copy of a search's study in memory, with the names of its objectives, without warm starts."""
    storage = InMemoryStorage()
    study = read_study(context.paths.folder, search=context.search, url=context.record.study)
    copy = optuna.create_study(
        study_name=context.name, directions=study.directions, storage=storage
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        copy.set_metric_names([objective.metric for objective in context.search.objectives])
    copy.add_trials(started_trials(study.get_trials(deepcopy=False)))
    return storage


@dataclass
class StudyDashboard:
    """WSGI application: the pages of a study, for whoever has the token, and nothing to change.

    The first page takes the token from its address and stores it in a cookie of the browser.

    Args:
        build: builds the pages of the study as it is now.
    """

    build: Callable[[], WsgiApp]
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    _pages: WsgiApp | None = None
    _built: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, request: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request."""
        given = parse_qs(request.get("QUERY_STRING", "")).get(TOKEN_PARAMETER, [""])[0]
        if self._is_token(given):
            cookie = f"{COOKIE}={self.token}; HttpOnly; SameSite=Strict; Path=/"
            start("303 See Other", [("Location", f"/{FIRST_PAGE}"), ("Set-Cookie", cookie)])
            return []
        if not self._is_token(_cookie(request)):
            return _refuse(start, "401 Unauthorized", "open the address that hpsearch ui printed")
        if request["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _refuse(start, "403 Forbidden", "this copy of the study cannot be changed")
        return self._current()(request, start)

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.token.encode())

    def _current(self) -> WsgiApp:
        with self._lock:
            if self._pages is None or time.monotonic() - self._built > REFRESH_S:
                self._pages, self._built = self.build(), time.monotonic()
            return self._pages


def _cookie(request: dict[str, Any]) -> str:
    try:
        found = SimpleCookie(request.get("HTTP_COOKIE", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def _refuse(start: Callable[..., Any], status: str, sentence: str) -> Iterable[bytes]:
    start(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [sentence.encode()]


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _SilentHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing; the address of the first request contains the token."""


@contextmanager
def serve_dashboard(context: SearchContext, port: int = 0) -> Iterator[str]:
    """Serve optuna-dashboard for a search on 127.0.0.1 while the block runs.

    Args:
        context: the search.
        port: port of the server; 0 for any that is free.

    Yields:
        Address with the token, to open in a browser.

    Raises:
        UserError: if the package is not installed, or the port is in use.
    """
    try:
        from optuna_dashboard import wsgi
    except ImportError as error:
        raise UserError(
            'optuna-dashboard is not installed; run pip install "hpsearch[dashboard]"',
            code="no-dashboard",
        ) from error

    pages = StudyDashboard(lambda: wsgi(copy_study(context)))
    try:
        server = make_server("127.0.0.1", port, pages, _Server, _SilentHandler)
    except OSError as error:
        raise UserError(f"port {port} is in use; choose another", code="port-in-use") from error
    thread = threading.Thread(target=server.serve_forever, name="dashboard", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/?{TOKEN_PARAMETER}={pages.token}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
