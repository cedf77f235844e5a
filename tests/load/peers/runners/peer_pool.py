"""concurrent.futures.ProcessPoolExecutor: `plain`, a task each; `chunked`, map with a chunksize of 1,000."""

import os
import platform
from concurrent.futures import ProcessPoolExecutor, as_completed

from function import echo
from peer import Role, Take, arguments, serve

CHUNK_TASKS = 1_000
# Two per worker while a kill is tried, so that it falls between chunks too.
CHUNK_TASKS_TRACED = 25


class Pool:
    version = f"Python {platform.python_version()}"

    def __init__(self, variant: str) -> None:
        # What was submitted is in the memory of the client.
        self.roles = {"worker": Role("peer_pool"), "server": Role("")}
        self.chunked = variant == "chunked"
        self.chunk_tasks = CHUNK_TASKS_TRACED if "PEERS_TRACE" in os.environ else CHUNK_TASKS
        self.executor = ProcessPoolExecutor(os.cpu_count())

    def run(self, payloads: list[str], take: Take) -> None:
        if self.chunked:
            for index, result in enumerate(self.executor.map(echo, payloads, chunksize=self.chunk_tasks)):
                take(index, result)
            return
        futures = {self.executor.submit(echo, payload): index for index, payload in enumerate(payloads)}
        for future in as_completed(futures):
            # Taken out, so that no result is held once it is read.
            take(futures.pop(future), future.result())

    def one(self, payload: str) -> str:
        return self.executor.submit(echo, payload).result()


if __name__ == "__main__":
    serve(Pool(arguments()[0]))
