"""Ray on one machine: `tasks`, a remote call each, read with ray.wait; `actors`, a pool of actors, 1,000 items a call."""

import os
from pathlib import Path

import ray
from function import echo, echo_all
from peer import Role, Take, arguments, chunks, serve, take_pack
from ray.util import ActorPool

PACK_TASKS = 1_000
PACK_TASKS_TRACED = 25
# Results that one call of ray.wait waits for; asking for one at a time is quadratic, but tells at once what is there.
WAIT_TASKS = 1_000
WAIT_TASKS_TRACED = 1


@ray.remote
def echo_task(payload: str) -> str:
    return echo(payload)


@ray.remote(max_restarts=-1, max_task_retries=-1)
class Echo:
    def echo_all(self, payloads: list[str]) -> list[str]:
        return echo_all(payloads)

    def numbered(self, pack: tuple[int, list[str]]) -> tuple[int, list[str]]:
        return pack[0], echo_all(pack[1])


class Ray:
    version = f"ray {ray.__version__}"
    def __init__(self, variant: str, directory: Path) -> None:
        environment = {"env_vars": {name: os.environ[name] for name in os.environ if name.startswith(("PEERS_", "PYTHONPATH"))}}
        ray.init(
            num_cpus=os.cpu_count(),
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env=environment,
        )
        traced = "PEERS_TRACE" in os.environ
        self.pack_tasks = PACK_TASKS_TRACED if traced else PACK_TASKS
        self.wait_tasks = WAIT_TASKS_TRACED if traced else WAIT_TASKS
        # A worker is started again by the raylet. What was submitted is in the memory of its owner, which is the client.
        self.roles = {"worker": Role("ray::"), "gcs": Role("gcs_server"), "raylet": Role("raylet/raylet"), "server": Role("")}
        self.actors = [Echo.remote() for _ in range(os.cpu_count() or 1)] if variant == "actors" else []

    def run(self, payloads: list[str], take: Take) -> None:
        if self.actors:
            pool = ActorPool(self.actors)
            packs = chunks(payloads, self.pack_tasks)
            for start, results in pool.map_unordered(lambda actor, pack: actor.numbered.remote(pack), packs):
                take_pack(start, results, take)
            return
        indices = {echo_task.remote(payload): index for index, payload in enumerate(payloads)}
        open_tasks = list(indices)
        while open_tasks:
            done, open_tasks = ray.wait(open_tasks, num_returns=min(self.wait_tasks, len(open_tasks)))
            for reference, result in zip(done, ray.get(done), strict=True):
                take(indices.pop(reference), result)

    def one(self, payload: str) -> str:
        if self.actors:
            return ray.get(self.actors[0].echo_all.remote([payload]))[0]
        return ray.get(echo_task.remote(payload))


if __name__ == "__main__":
    variant_asked, own_directory = arguments()
    serve(Ray(variant_asked, own_directory))
