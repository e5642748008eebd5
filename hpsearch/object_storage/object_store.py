"""Requests to an object store, with retries; each fault that lasts becomes one sentence."""

import random
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

from hpsearch.errors import UserError
from hpsearch.redaction import redacted, refuse_password

READ_TIMEOUT_S, RETRY_FOR_S = 20, 120.0
"""Longest time without a byte of an answer; time for which a request that fails is repeated."""
REQUEST_TIMEOUT_S = 3_600
"""Longest time of one request, which may carry a large file over a slow line."""
UPLOADS = 2
"""Parts of a large file that are sent at once; each must be through within ``READ_TIMEOUT_S``."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0
REFUSAL = re.compile("403 Forbidden|401 Unauthorized|InvalidAccessKeyId|SignatureDoesNotMatch")
"""Texts of refusals that the library reports as failures of any kind."""
CAUSES = {
    "ConnectionRefused": "connection refused",
    "dns error": "its host is not known",
    "kind: Timeout|TimedOut": f"no answer within {READ_TIMEOUT_S} s",
    "IncompleteMessage|ConnectionReset|BrokenPipe": "the connection was closed",
}
"""Causes by what the library writes for them."""
Result = TypeVar("Result")


class StoreUnavailableError(UserError):
    """The object store has refused or not answered a request for ``RETRY_FOR_S``."""

    default_code = "store-unavailable"


class ObjectStore:
    """Objects below one address; every request is repeated while the failure may pass.

    Args:
        address: such as ``s3://BUCKET/PREFIX``.
        store: a store of obstore to use instead, in tests for example.
        retry_for_s: time for which a request that fails is repeated.

    Example:
        >>> from obstore.store import MemoryStore
        >>> store = ObjectStore("s3://lab/runs", MemoryStore())
        >>> store.create("a", b"1"), store.create("a", b"2"), store.get("a")
        (True, False, b'1')
    """

    def __init__(self, address: str, store: Any = None, retry_for_s: float = RETRY_FOR_S) -> None:
        refuse_password(address, "--home")
        self.address, self.retry_for_s = address.rstrip("/"), retry_for_s
        self._store = _connect(self.address) if store is None else store

    def get(self, name: str) -> bytes:
        """Content of an object.

        Raises:
            FileNotFoundError: if there is none.
        """
        return self._repeated(lambda: bytes(_obstore().get(self._store, name).bytes()))

    def put(self, name: str, content: bytes) -> None:
        """Write an object, whether there is one or not."""
        self._repeated(lambda: _obstore().put(self._store, name, content, max_concurrency=UPLOADS))

    def create(self, name: str, content: bytes) -> bool:
        """Write an object only if there is none (If-None-Match); False if another is there."""
        from obstore.exceptions import AlreadyExistsError

        try:
            self._repeated(lambda: _obstore().put(self._store, name, content, mode="create"))
        except AlreadyExistsError:
            # an answer may have been lost after the object was written
            return self.get(name) == content
        return True

    def names(self, prefix: str) -> dict[str, float]:
        """Names of all objects below a prefix, and when they were written (seconds since 1970)."""

        def listed() -> dict[str, float]:
            pages = _obstore().list(self._store, f"{prefix}/")
            return {x["path"]: x["last_modified"].timestamp() for page in pages for x in page}

        return self._repeated(listed)

    def delete(self, names: Sequence[str]) -> None:
        """Delete objects; those that are missing are passed over."""
        if names:
            with suppress(FileNotFoundError):
                self._repeated(lambda: _obstore().delete(self._store, list(names)))

    def _repeated(self, request: Callable[[], Result]) -> Result:
        """Result of a request, which is repeated with growing pauses while it may yet succeed."""
        from obstore import exceptions as faults

        began, pause = time.monotonic(), FIRST_PAUSE_S
        while True:
            try:
                return request()
            except (faults.PermissionDeniedError, faults.UnauthenticatedError) as error:
                raise self._refused(error) from error
            except FileNotFoundError as error:
                if "NoSuchBucket" in str(error):
                    raise self._refused(error) from error
                raise
            except (faults.GenericError, OSError, TimeoutError) as error:
                if sentence := self._lasting(str(error)):
                    raise UserError(sentence, code="store-refused") from error
                if "NoSuchBucket" in str(error) or REFUSAL.search(str(error)):
                    raise self._refused(error) from error
                if time.monotonic() - began + pause > self.retry_for_s:
                    raise StoreUnavailableError(
                        f"{redacted(self.address)} has not answered for {self.retry_for_s:.0f} s "
                        f"({_first_line(error)}); check the network and AWS_ENDPOINT_URL, then "
                        "repeat the command"
                    ) from error
            time.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _lasting(self, text: str) -> str:
        """Sentence of a failure that a repetition cannot correct; empty for any other."""
        if any(x in text for x in ("redirect", "AuthorizationHeaderMalformed", "301 Moved")):
            return (
                f"{self.address} lies in another region than AWS_REGION names; set AWS_REGION to "
                "the bucket's region"
            )
        if any(x in text for x in ("instance credentials", "169.254.169.254", "MissingCredential")):
            return (
                f"there are no credentials for {self.address} in the environment; set "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        if "InvalidBucketName" in text:
            return f"{self.address} is no valid bucket; correct --home"
        return ""

    def _refused(self, error: Exception) -> UserError:
        if "NoSuchBucket" in str(error):
            return UserError(
                f"there is no bucket of {self.address}; create it, or correct --home",
                code="no-such-bucket",
            )
        return UserError(
            f"{self.address} refuses these credentials ({_first_line(error)}); check "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and that they may read, write and list",
            code="store-refused",
        )


def _first_line(error: Exception) -> str:
    """Cause of a failure in few words; without the library's own, which name an address only."""
    text = str(error)
    code = re.search(r"<Code>(\w+)</Code>", text)
    if code:
        return code[1]
    for pattern, words in CAUSES.items():
        if re.search(pattern, text):
            return words
    return redacted(text.splitlines()[0].rpartition(" - ")[2])[:160].rstrip(".")


def _obstore() -> Any:
    try:
        import obstore
    except ImportError as error:
        raise UserError(
            "a --home in an object store needs obstore; install it with "
            "`pip install 'hpsearch[s3]'`",
            code="missing-package",
        ) from error
    return obstore


def _connect(address: str) -> Any:
    _obstore()
    from obstore.store import from_url

    http = address.startswith("s3://")  # an endpoint of one's own may have no certificate
    try:
        return from_url(
            address,
            client_options={
                "timeout": f"{REQUEST_TIMEOUT_S}s",
                "read_timeout": f"{READ_TIMEOUT_S}s",
                "connect_timeout": f"{READ_TIMEOUT_S}s",
                "allow_http": http,
            },
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=READ_TIMEOUT_S)},
        )
    except Exception as error:
        raise UserError(
            f"{redacted(address)} is no address of an object store ({_first_line(error)}); give "
            "--home as s3://BUCKET/PREFIX",
            code="invalid-home",
        ) from error
