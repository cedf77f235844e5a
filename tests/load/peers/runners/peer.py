"""What the runners in Python share: the conversation with the driver (see ../README.md), and starting servers.

A runner is called with a variant and a directory of its own, and answers the driver's commands, a JSON object per line.
"""

import json
import socket
import subprocess
import sys
import time
import traceback
from asyncio import CancelledError
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

Take = Callable[[int, str], None]


@dataclass
class Role:
    """Whom the driver may kill: the process of this runner whose command line has `match`; the runner itself if that is empty.

    `restart` are the commands that bring it back, where nobody else does.
    """

    match: str
    restart: list[list[str]] = field(default_factory=list)


class Peer(Protocol):
    """A system, started, and a client of it."""

    version: str
    roles: dict[str, Role]

    def run(self, payloads: list[str], take: Take) -> None:
        """Submits all, and gives each result to `take`, with the index of the payload that it answers."""

    def one(self, payload: str) -> str:
        """Submits one and waits for its result."""


def payload(index: int) -> str:
    """64 bytes that depend on the task."""
    return f"{index:016d}" + chr(97 + index % 26) * 48


def answer(**message: Any) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def serve(peer: Peer) -> None:
    """Answers the driver until it has no more to ask, or something has failed."""
    answer(ready={"version": peer.version, "roles": {name: asdict(role) for name, role in peer.roles.items()}})
    for line in sys.stdin:
        try:
            obey(peer, json.loads(line))
        except (Exception, CancelledError) as error:
            traceback.print_exc()
            answer(failed=f"the client was told {type(error).__name__}: {error}")
            return


def obey(peer: Peer, command: dict[str, Any]) -> None:
    match command["do"]:
        case "run":
            answer(ran={"seconds": run(peer, command)})
        case "latency":
            answer(latency={"us": latency(peer, command)})
        case _:
            answer(failed="there is nothing to come back to: what the client had submitted went with it")


def run(peer: Peer, command: dict[str, Any]) -> float:
    # Line by line where the process may be killed, so that what was read is known.
    with open(command["results"], "w", buffering=1 if command["flush"] else 1 << 20) as file:

        def take(index: int, result: str) -> None:
            # Some clients give the failure of a task as its result: that is none.
            if isinstance(result, str):
                file.write(f"{index} {result}\n")
            else:
                print(f"task {index}: {result!r}", file=sys.stderr)

        started = time.perf_counter()
        peer.run([payload(index) for index in range(command["tasks"])], take)
        file.flush()
        return time.perf_counter() - started


def latency(peer: Peer, command: dict[str, Any]) -> list[float]:
    taken: list[float] = []
    until = time.perf_counter() + command["seconds"]
    while len(taken) < command["tasks"] and time.perf_counter() < until:
        sent = payload(len(taken))
        started = time.perf_counter()
        got = peer.one(sent)
        taken.append((time.perf_counter() - started) * 1e6)
        if got != sent:
            raise ValueError(f"the result of {sent} is {got}")
    return taken


def chunks(payloads: list[str], size: int) -> Iterator[tuple[int, list[str]]]:
    for start in range(0, len(payloads), size):
        yield start, payloads[start : start + size]


def take_pack(start: int, results: Any, take: Take) -> None:
    """The results of tasks that were packed into one; a failure of it is that of each, so there is none."""
    if not isinstance(results, list):
        print(f"the pack from task {start}: {results!r}", file=sys.stderr)
        return
    for offset, result in enumerate(results):
        take(start + offset, result)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for_port(port: int, seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                raise TimeoutError(f"nothing answers on port {port} after {seconds} s") from error
            time.sleep(0.05)


@contextmanager
def servers(directory: Path, *commands: list[str]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Starts commands, with their output in the directory's log, and ends them."""
    with open(directory / "servers.log", "ab") as log:
        started = [subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log) for command in commands]
    try:
        yield started
    finally:
        for server in started:
            server.terminate()


def redis_server(directory: Path, port: int, durable: bool) -> list[str]:
    """Redis as it comes, or so that what it has acknowledged is on the disk."""
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory), "--daemonize", "no"]
    return [*command, "--appendonly", "yes", "--appendfsync", "always"] if durable else command


def arguments() -> tuple[str, Path]:
    """The variant and the directory."""
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} VARIANT DIRECTORY")
    return sys.argv[1], Path(sys.argv[2])
