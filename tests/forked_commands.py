"""Commands in processes that are forked from one which has loaded the large libraries.

A command takes two to four seconds of processor time to load them, and the documents have sixty
commands. Here a server loads them once; a client, which stands in for ``hpsearch`` on the path,
hands it its arguments, folder, environment and streams, and exits as the command does. Each command
is still a process of its own, which loads ``hpsearch`` and Ray itself, since both read variables
then.
"""

import gc
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType

LIBRARIES = (
    "matplotlib.pyplot", "mlflow", "mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_store", "optuna", "pandas", "PIL.Image",
    "plotly.graph_objects", "pyarrow", "scipy.stats", "skimage.data", "torch", "typer",
)  # fmt: skip
SOCKET = "HPSEARCH_TEST_SOCKET"
"""Variable that tells a client where the server listens."""
MAX_REQUEST_BYTES = 1_000_000


@contextmanager
def command_server(folder: Path) -> Iterator[Path]:
    """Server of commands, until the block ends.

    Args:
        folder: receives its socket.

    Yields:
        Path of the socket, the value of ``HPSEARCH_TEST_SOCKET``.
    """
    path = folder / "commands"
    words = [sys.executable, "-W", "ignore", __file__, "serve", str(path)]
    # its standard input ends with this process, and then it ends too
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin
        assert server.stdout
        assert server.stdout.readline() == b"ready\n"
        yield path
        server.terminate()


def client(folder: Path, name: str, *words: str) -> Path:
    """Write a program that has the server run ``words`` and its own arguments."""
    path = folder / name
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{__file__}" {" ".join(words)} "$@"\n')
    path.chmod(0o755)
    return path


def request(words: list[str]) -> int:
    """Have the server run a command with this process's streams; return its exit code."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(os.environ[SOCKET])
        asked = {"words": words, "folder": os.getcwd(), "environment": dict(os.environ)}  # noqa: PTH109
        socket.send_fds(server, [json.dumps(asked).encode()], [0, 1, 2])
        server.shutdown(socket.SHUT_WR)
        return int(server.makefile().read() or "1")


def serve(path: str) -> None:
    """Fork a process for each command that a client asks for; return in that process alone."""
    for name in LIBRARIES:
        import_module(name)
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                break
            connection.close()
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
    text, streams, _, _ = socket.recv_fds(connection, MAX_REQUEST_BYTES, 3)
    while more := connection.recv(MAX_REQUEST_BYTES):
        text += more
    if child := os.fork():
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        connection.sendall(str(code if code >= 0 else 128 - code).encode())  # as a shell's
        os._exit(0)
    connection.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    run(**json.loads(text))


def run(words: list[str], folder: str, environment: dict[str, str]) -> None:
    """Run ``hpsearch WORDS``, or ``-c CODE``, in this process."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    program = sys.modules["__main__"] = ModuleType("__main__")
    sys.argv = words
    if words[0] == "-c":
        sys.path[0] = ""
        exec(compile(words[1], "<string>", "exec"), vars(program))
    else:
        from hpsearch.cli import main

        main()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        sys.exit(request(sys.argv[1:]))
