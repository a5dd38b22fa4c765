"""A process that has imported what commands need, and forks for each: pages run dozens of commands, each of which would import
PyTorch and open_clip for seconds.

`serving` runs the process; `client` is the text of a program that stands in for `cir-vectorizer`: it hands its folder,
environment and streams to a fork, and ends as that does. If the client is killed, so is the fork.
"""

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

IMPORTED = (
    "cir_vectorizer.backbones.tiny",
    "cir_vectorizer.cli",
    "cir_vectorizer.models",
    "cir_vectorizer.sync",
    "cir_vectorizer_qdrant",
    "cir_vectorizer_qdrant.collection",
    "cir_vectorizer_weaviate",
    "cir_vectorizer_weaviate.collection",
)
FEW_EDITS = 4000
CLIENT = """\
#!{python} -IS
import json, os, socket, sys
door = socket.socket(socket.AF_UNIX)
door.connect({socket!r})
request = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(door, [len(request).to_bytes(4, "big")], [0, 1, 2])
door.sendall(request)
sys.exit(door.recv(1)[0])
"""


def client(path: Path) -> str:
    """Return the program that has its command run by the process behind a socket."""
    return CLIENT.format(python=sys.executable, socket=str(path))


@contextlib.contextmanager
def serving(path: Path, log: Path) -> Iterator[None]:
    """Run the process behind a socket at `path` until the context ends."""
    door = socket.socket(socket.AF_UNIX)
    door.bind(str(path))
    door.listen()
    command = [sys.executable, "-m", "tests.docs.warm", str(door.fileno())]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, pass_fds=[door.fileno()], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    door.close()
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _serve(door: socket.socket) -> None:
    for module in IMPORTED:
        importlib.import_module(module)
    _few_edits()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        connection, _ = door.accept()
        if os.fork() == 0:
            door.close()
            status = 1
            try:
                status = _command(connection)
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            connection.send(bytes([status]))
            os._exit(status)
        connection.close()


def _few_edits() -> None:
    """Have trainings draw few edits of the captions, which takes most of their time here."""
    from cir_vectorizer_trainer.edits.making import MOST_EDITS, Making

    defaults = Making.__init__.__defaults__ or ()
    Making.__init__.__defaults__ = tuple(FEW_EDITS if each == MOST_EDITS else each for each in defaults)


def _command(connection: socket.socket) -> int:
    """Run the command that a client sends; return its exit status."""
    from cir_vectorizer.cli import main

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, streams, _, _ = socket.recv_fds(connection, 4, 3)
    arguments, folder, environment = json.loads(connection.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL))
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    threading.Thread(target=_end_with_client, args=(connection,), daemon=True).start()
    sys.argv = ["cir-vectorizer", *arguments]
    try:
        main(arguments, prog_name="cir-vectorizer")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _end_with_client(connection: socket.socket) -> None:
    if not connection.recv(1):
        os._exit(1)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
