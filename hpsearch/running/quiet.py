"""Ray tells a driver of each worker that died, in a paragraph; the ledger says it in one line.

What else Ray's own processes have to say (a disk that fills, nodes that cannot come) is shown.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ray._private import worker

TOLD_ALREADY = re.compile(
    r"A worker died or was killed"
    r"|\d+ worker\(s\) were killed due to the node running low on memory"
    r"|\d+ Workers \(tasks / actors\) killed due to memory pressure"
    r"|WARNING: \d+ PYTHON worker processes have been started"
)


@contextmanager
def deaths_told_once() -> Iterator[None]:
    """While inside, Ray prints nothing of workers that died."""
    before: Callable[..., None] = worker.print_to_stdstream  # pyright: ignore

    def tell(data: dict[str, Any], *how: Any, **also: Any) -> None:
        lines = [line for line in data["lines"] if not TOLD_ALREADY.match(line)]
        if lines:
            before({**data, "lines": lines}, *how, **also)

    # there is no public way; `log_to_driver` is for what workers print
    worker.print_to_stdstream = tell  # pyright: ignore[reportPrivateImportUsage]
    try:
        yield
    finally:
        worker.print_to_stdstream = before  # pyright: ignore[reportPrivateImportUsage]
