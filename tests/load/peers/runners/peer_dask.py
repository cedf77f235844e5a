"""Dask distributed: a scheduler and one single-threaded worker process per core, each a process of its own.

`tasks`: client.map, submitted in batches as its documentation advises for many tasks. `packed`: a user packs 1,000 items into
a task by hand. `pure=False`, for otherwise equal payloads are one task and hashing them costs.
"""

import os
from pathlib import Path

import distributed
from distributed import Client, as_completed
from function import echo, echo_all
from peer import Role, Take, arguments, chunks, free_port, serve, servers, take_pack, wait_for_port

BATCH_TASKS = 1_000
PACK_TASKS = 1_000
PACK_TASKS_TRACED = 25


class Dask:
    version = f"distributed {distributed.__version__}"

    def __init__(self, variant: str, port: int, restart: list[str]) -> None:
        self.packed = variant == "packed"
        self.pack_tasks = PACK_TASKS_TRACED if "PEERS_TRACE" in os.environ else PACK_TASKS
        # Its nanny starts a worker that died again.
        self.roles = {"worker": Role("spawn_main"), "server": Role("dask scheduler", [restart])}
        self.client = Client(f"tcp://127.0.0.1:{port}")
        self.client.wait_for_workers(os.cpu_count() or 1)

    def run(self, payloads: list[str], take: Take) -> None:
        if self.packed:
            packs = list(chunks(payloads, self.pack_tasks))
            futures = self.client.map(echo_all, [pack for _, pack in packs], pure=False)
            starts = {future: start for future, (start, _) in zip(futures, packs, strict=True)}
            del futures
            for batch in as_completed(list(starts), with_results=True).batches():
                for future, results in batch:
                    take_pack(starts.pop(future), results, take)
            return
        futures = self.client.map(echo, payloads, pure=False, batch_size=BATCH_TASKS)
        indices = {future: index for index, future in enumerate(futures)}
        del futures
        for batch in as_completed(list(indices), with_results=True).batches():
            for future, result in batch:
                take(indices.pop(future), result)

    def one(self, payload: str) -> str:
        return self.client.submit(echo, payload, pure=False).result()


def main() -> None:
    variant, directory = arguments()
    port = free_port()
    scheduler = ["dask", "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard", "--no-show"]
    worker = ["dask", "worker", f"tcp://127.0.0.1:{port}", "--nworkers", str(os.cpu_count()), "--nthreads", "1"]
    worker += ["--no-dashboard", "--local-directory", str(directory)]
    with servers(Path(directory), scheduler):
        wait_for_port(port)
        with servers(directory, worker):
            serve(Dask(variant, port, scheduler))


if __name__ == "__main__":
    main()
