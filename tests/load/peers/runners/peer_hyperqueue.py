"""HyperQueue, from its Python package: a server with one worker over all cores in one process, and a client of it.

A task is a process: `cat`, with the payload as its input. The package has neither the server's journal nor its streaming of
outputs, which the command-line tool has: nothing here survives the server, and each output is a file.
"""

import os
import sys
import time
from pathlib import Path

from hyperqueue import Client, Job
from hyperqueue.cluster import LocalCluster, WorkerConfig
from hyperqueue.ffi import get_version
from peer import Role, Take, arguments, serve, servers

# As the function of the other peers does, when a kill is tried.
TRACED = 'read -r payload; printf "%.16s\\n" "$payload" >> "$PEERS_TRACE"; sleep "$PEERS_TASK_SECONDS"; printf %s "$payload"'


class HyperQueue:
    version = f"hyperqueue {get_version()}"

    def __init__(self, directory: Path, restart: list[str]) -> None:
        # The worker is a thread of the server's process.
        self.roles = {"server": Role("peer_hyperqueue.py --server", [restart])}
        self.directory, self.jobs = directory, 0
        self.client = Client(directory / "server")
        self.args = ["sh", "-c", TRACED] if "PEERS_TRACE" in os.environ else ["cat"]

    def run(self, payloads: list[str], take: Take) -> None:
        self.jobs += 1
        outputs = self.directory / f"job-{self.jobs}"
        outputs.mkdir()
        job = Job(max_fails=None, default_workdir=outputs)
        for index, payload in enumerate(payloads):
            # A line, for the shell's `read`.
            job.program(self.args, stdin=payload + "\n", stdout=str(outputs / str(index)), stderr=None)
        try:
            self.client.wait_for_jobs([self.client.submit(job)], raise_on_error=False)
        finally:
            for index in range(len(payloads)):
                output = outputs / str(index)
                if output.exists() and (result := output.read_text().rstrip("\n")):
                    take(index, result)

    def one(self, payload: str) -> str:
        results: list[str] = []
        self.run([payload], lambda _, result: results.append(result))
        return results[0]


def server(directory: Path) -> None:
    (directory / "server").mkdir(exist_ok=True)
    with LocalCluster(str(directory / "server"), WorkerConfig(cores=os.cpu_count())):
        while True:
            time.sleep(3600)


def main() -> None:
    if sys.argv[1] == "--server":
        server(Path(sys.argv[2]))
    _, directory = arguments()
    command = [sys.executable, __file__, "--server", str(directory)]
    with servers(directory, command):
        # Where the server is, is written there.
        until = time.monotonic() + 30
        while not (directory / "server" / "hq-current" / "access.json").exists() and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(0.5)
        # Its progress bar goes to stderr, which is the driver's log.
        serve(HyperQueue(directory, command))


if __name__ == "__main__":
    main()
