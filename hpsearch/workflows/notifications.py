"""Notifications about a search: JSON to a web address or a program, from a thread of their own.

A message is sent up to four times; whatever happens to it, training does not wait. With a secret in
``HPSEARCH_NOTIFY_SECRET``, the header ``X-Hpsearch-Signature`` of a request is ``sha256=`` and the
HMAC of its body in hexadecimal digits.
"""

import hashlib
import hmac
import json
import os
import queue
import shlex
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hpsearch.errors import UserError
from hpsearch.host_limits import exempt_this_machine_from_proxies, proxy_hint
from hpsearch.redaction import redacted
from hpsearch.search.search_context import SearchContext
from hpsearch.tracking.run_state import Run
from hpsearch.workflows.callbacks import Callback
from hpsearch.workflows.observer import SearchResult

if TYPE_CHECKING:
    from hpsearch.workflows.promote_search import PromotionResult

SECRET_ENV = "HPSEARCH_NOTIFY_SECRET"
SIGNATURE_HEADER = "X-Hpsearch-Signature"
RETRY_WAITS_S = (1.0, 5.0, 25.0)
"""Seconds before each further attempt to send a message."""
SEND_TIMEOUT_S = 10.0
"""Seconds that a server or a program has for a message."""
FLUSH_TIMEOUT_S = 15.0
"""Seconds that the end of a search waits for messages that are not sent yet."""
DEFAULT_IDLE_S = 3600.0
"""Seconds without a report after which a search counts as without progress."""


def check_target(target: str) -> None:
    """Check that a target is a web address, or a program that exists.

    Raises:
        UserError: if it is neither.
    """
    import shutil

    if target.startswith(("http://", "https://")):
        return
    try:
        words = shlex.split(target)
    except ValueError as error:
        raise UserError(
            f"--notify {target!r} is not a command ({error}); correct its quotes",
            code="invalid-notify-target",
        ) from error
    if not words or shutil.which(words[0]) is None:
        raise UserError(
            f"--notify takes an address (https://…) or a program, and there is no program "
            f"{target[:80]!r}",
            code="invalid-notify-target",
        )


class Notifier(Callback):
    """Callback that sends a message at an end, a failure, a new best, a new champion, or silence.

    Args:
        targets: web addresses and commands; a command receives the JSON as a line on its standard
            input.
        idle_seconds: seconds without a report after which one message is sent.
        retry_waits: seconds before each further attempt.

    Raises:
        UserError: if a target is neither an address nor a program.
    """

    def __init__(
        self,
        targets: Sequence[str],
        *,
        idle_seconds: float = DEFAULT_IDLE_S,
        retry_waits: Sequence[float] = RETRY_WAITS_S,
    ) -> None:
        for target in targets:
            check_target(target)
        self._targets, self._idle, self._waits = tuple(targets), idle_seconds, tuple(retry_waits)
        self._messages: queue.Queue[dict[str, Any]] = queue.Queue()
        self._context: SearchContext | None = None
        self._best: float | None = None
        self._is_silent = False
        self.failures: list[str] = []
        """Sentences about messages that could not be sent."""
        threading.Thread(target=self._send_all, name="notifications", daemon=True).start()

    def on_search_start(self, context: SearchContext) -> None:
        """Remember the search, and its best trial so far."""
        self._context = context
        for run in context.runs:
            if run.kind == "trial":
                self._is_new_best(run)

    def on_report(self, run: Run) -> None:
        """Note that there is progress."""
        self._is_silent = False

    def on_trial_end(self, run: Run) -> None:
        """Send a message about a failure or a new best trial."""
        facts = {"trial": run.id, "status": run.status, "reason": run.reason}
        if run.status == "failed":
            self._notify("trial-failed", **facts)
        elif self._is_new_best(run):
            self._notify("new-best", value=self._best, **facts)

    def on_wait(self, seconds: float) -> None:
        """Send one message when there was no event for too long."""
        if seconds >= self._idle and not self._is_silent:
            self._is_silent = True
            self._notify("no-progress", seconds=seconds)

    def on_registration(self, result: "SearchResult | PromotionResult") -> None:
        """Send a message if the winner became champion."""
        registration = result.registration
        if registration is not None and registration.alias == "champion":
            self._notify(
                "new-champion", model=registration.model, version=str(registration.version)
            )

    def on_search_end(self, result: SearchResult | None, error: BaseException | None) -> None:
        """Send a message about the end, and wait a little for those that are not sent."""
        if result is not None:
            winner = result.winner and result.winner.id
            self._notify("search-ended", status=result.status, reason=result.reason, winner=winner)
        else:
            reason = redacted(str(error)) or type(error).__name__
            self._notify("search-failed", reason=reason)
        self.flush()

    def flush(self) -> None:
        """Wait a little for messages that are not sent yet."""
        deadline = time.monotonic() + FLUSH_TIMEOUT_S
        while self._messages.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.05)

    def _is_new_best(self, run: Run) -> bool:
        if run.status != "completed" or not run.reports or self._context is None:
            return False
        value = float(run.reports[-1]["objective"])
        if self._best is not None and not self._context.objective.is_better(value, self._best):
            return False
        self._best = value
        return True

    def _notify(self, event: str, **facts: Any) -> None:
        search = self._context.name if self._context is not None else None
        self._messages.put({"event": event, "search": search, "time": time.time(), **facts})

    def _send_all(self) -> None:
        while True:
            body = json.dumps(self._messages.get()).encode()
            for target in self._targets:
                self._send_with_retries(target, body)
            self._messages.task_done()

    def _send_with_retries(self, target: str, body: bytes) -> None:
        for wait in (*self._waits, None):
            try:
                return send(target, body)
            except (OSError, subprocess.SubprocessError) as error:
                if wait is None:
                    hint = proxy_hint(target)
                    self.failures.append(f"{redacted(target)}: {redacted(str(error))}{hint}")
                    return
                time.sleep(wait)


def send(target: str, body: bytes) -> None:
    """Send a message once.

    Raises:
        OSError: if the server does not answer, or refuses it.
        subprocess.SubprocessError: if the program fails, or takes too long.
    """
    if not target.startswith(("http://", "https://")):
        line = body + b"\n"
        subprocess.run(
            shlex.split(target), input=line, timeout=SEND_TIMEOUT_S, check=True, capture_output=True
        )
        return
    exempt_this_machine_from_proxies()
    headers = {"Content-Type": "application/json"}
    secret = os.environ.get(SECRET_ENV)
    if secret:
        headers[SIGNATURE_HEADER] = signature(body, secret)
    request = urllib.request.Request(target, body, headers)
    urllib.request.urlopen(request, timeout=SEND_TIMEOUT_S).close()


def signature(body: bytes, secret: str) -> str:
    """HMAC of a body, as in the header of a request.

    Example:
        >>> signature(b"{}", "secret")[:20]
        'sha256=77325902caca8'
    """
    return f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"
