"""Celery over Redis: `fast`, Redis as it comes; `durable`, every write synced; `durable-chunks`, Celery's chunks of 1,000 too."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import celery
from celery.result import AsyncResult, ResultSet
from peer import Role, Take, arguments, free_port, redis_server, serve, servers, take_pack, wait_for_port
from redis.exceptions import ConnectionError

CHUNK_TASKS = 1_000
CHUNK_TASKS_TRACED = 25
RECONNECT_SECONDS = 0.5


class Celery:
    def __init__(self, chunked: bool, redis: list[str], worker: list[str]) -> None:
        # Only now: the application reads where Redis is.
        from celery_app import app, echo

        self.version = f"celery {celery.__version__}"
        self.chunked, self.echo = chunked, echo
        self.chunk_tasks = CHUNK_TASKS_TRACED if "PEERS_TRACE" in os.environ else CHUNK_TASKS
        # The pool's process is started again by the worker's main one.
        self.roles = {"worker": Role("celery_app worker"), "server": Role("redis-server", [redis])}
        # One connection for all that is sent.
        self.producer = app.producer_or_acquire().__enter__()

    def run(self, payloads: list[str], take: Take) -> None:
        if self.chunked:
            group = self.echo.chunks(((payload,) for payload in payloads), self.chunk_tasks).group()
            sent = [task.apply_async(producer=self.producer) for task in group.tasks]
            starts = {result.id: number * self.chunk_tasks for number, result in enumerate(sent)}
            for task_id, results in self.results(sent):
                take_pack(starts[task_id], results, take)
            return
        sent = [self.echo.apply_async((payload,), producer=self.producer) for payload in payloads]
        indices = {result.id: index for index, result in enumerate(sent)}
        for task_id, result in self.results(sent):
            take(indices[task_id], result)

    def results(self, sent: list[AsyncResult]) -> Iterator[tuple[str, Any]]:
        """What each gave, as it comes; goes on when the connection has been lost."""
        left = {result.id: result for result in sent}
        while left:
            try:
                for task_id, meta in ResultSet(list(left.values())).iter_native():
                    del left[task_id]
                    yield task_id, meta["result"]
            except ConnectionError as error:
                print(f"{error}; asking again for {len(left)} results", file=sys.stderr)
                time.sleep(RECONNECT_SECONDS)

    def one(self, payload: str) -> str:
        return self.echo.apply_async((payload,), producer=self.producer).get()


def main() -> None:
    variant, directory = arguments()
    port = free_port()
    os.environ["PEERS_REDIS"] = f"redis://127.0.0.1:{port}/0"
    runners = Path(__file__).parent
    redis = redis_server(directory, port, variant != "fast")
    worker = [sys.executable, "-m", "celery", "--workdir", str(runners), "-A", "celery_app", "worker", "--pool", "prefork"]
    worker += ["--concurrency", str(os.cpu_count()), "--without-gossip", "--without-mingle", "--loglevel", "WARNING"]
    with servers(directory, redis):
        wait_for_port(port)
        with servers(directory, worker):
            serve(Celery(variant == "durable-chunks", redis, worker))


if __name__ == "__main__":
    main()
