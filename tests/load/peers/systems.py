"""The systems that are compared, and how each is started."""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Places:
    """Where programs and packages are."""

    programs: Path
    venvs: Path
    node: Path
    python: Path | None
    """A Python with awslambdaric, for Sheaf's functions in Python."""


@dataclass(frozen=True)
class System:
    name: str
    runner: str
    variant: str
    """As in the table."""
    what: str
    """Tasks of the first, uncounted run, from whose rate the number of the others follows."""
    warm_up_tasks: int
    venv: str | None = None
    needs_redis: bool = False
    """Whether it writes to the disk, synced, before it says that it has a task."""
    durable: bool = False
    """Whether its user packs many items into one task, which then fails, is retried and is acknowledged as one."""
    packed: bool = False
    """Whether it is part of a quick comparison: of each peer, the fastest that keeps its promises."""
    quick: bool = False
    """The system whose trials of kills hold for this one too."""
    kills_as: str | None = None
    """How long it may take to come back to a task; longer than usual where it looks that rarely."""
    patience_seconds: float | None = None

    @property
    def is_sheaf(self) -> bool:
        return self.runner == "sheaf-peers"

    def missing(self, places: Places) -> str | None:
        """Why it cannot run here."""
        if self.is_sheaf:
            if not (places.programs / self.runner).is_file():
                return f"{places.programs / self.runner} is not built"
            if "python" in self.variant and places.python is None:
                return "there is no Python with awslambdaric"
            return None
        if self.needs_redis and shutil.which("redis-server") is None:
            return "there is no redis-server on the PATH (Debian package redis-server)"
        if self.venv and not self.python(places).is_file():
            return f"{places.venvs / self.venv} is not there; `cargo xtask peers` says why"
        if self.runner.endswith(".mjs"):
            if shutil.which("node") is None:
                return "there is no node on the PATH"
            if not (places.node / "node_modules/bullmq").is_dir():
                return f"{places.node} has no bullmq; `cargo xtask peers` says why"
        return None

    def python(self, places: Places) -> Path:
        return places.venvs / self.venv / "bin/python3" if self.venv else Path(sys.executable)

    def command(self, places: Places, directory: Path) -> list[str]:
        runner = str(HERE / "runners" / self.runner)
        if self.is_sheaf:
            start = [str(places.programs / self.runner)]
        elif self.runner.endswith(".mjs"):
            start = ["node", runner]
        else:
            start = [str(self.python(places)), runner]
        return [*start, self.variant, str(directory)]

    def environment(self, places: Places, directory: Path) -> dict[str, str]:
        """Nothing of the caller's but where programs are: no settings of one system leak in."""
        folders = [self.python(places).parent if not self.is_sheaf else places.python.parent if places.python else None]
        path = ":".join([str(folder) for folder in folders if folder] + [os.environ.get("PATH", "")])
        return {
            "PATH": path,
            "HOME": str(directory),
            "LANG": "C.UTF-8",
            "PEERS_NODE": str(places.node),
            "PYTHONPATH": f"{HERE / 'function'}:{HERE / 'runners'}",
            "PYTHONDONTWRITEBYTECODE": "1",
        }


def sheaf(variant: str, what: str, warm_up_tasks: int, quick: bool = False, kills_as: str | None = None) -> System:
    return System(f"sheaf-{variant}", "sheaf-peers", variant, what, warm_up_tasks, durable=True, quick=quick, kills_as=kills_as)


def celery(variant: str, what: str, warm_up_tasks: int, quick: bool = False) -> System:
    durable = variant.startswith("durable")
    # What a lost worker or broker had handed out is looked for every hundred seconds.
    patience_seconds = 150 if durable else None
    return System(
        f"celery-{variant}",
        "peer_celery.py",
        variant,
        what,
        warm_up_tasks,
        venv="celery",
        needs_redis=True,
        durable=durable,
        packed=variant.endswith("chunks"),
        quick=quick,
        patience_seconds=patience_seconds,
    )


SYSTEMS = [
    sheaf("embedded", "Rust handler in the client's process, fsynced", 200_000, quick=True),
    sheaf("http-batch", "over HTTP, Rust child, batches", 100_000, True, "sheaf-python-batch"),
    sheaf("http-one", "over HTTP, Rust child, a call per task", 5_000, kills_as="sheaf-python-one"),
    sheaf("python-batch", "over HTTP, Python child, batches", 50_000, True),
    sheaf("python-one", "over HTTP, Python child, a call per task", 1_000, True),
    sheaf("command", "over HTTP, a process per task", 300),
    System("pool-plain", "peer_pool.py", "plain", "ProcessPoolExecutor, submit", 5_000),
    System("pool-chunked", "peer_pool.py", "chunked", "ProcessPoolExecutor, map in chunks of 1,000", 50_000, packed=True, quick=True),
    System("dask-tasks", "peer_dask.py", "tasks", "Dask, client.map", 500, "dask"),
    System("dask-packed", "peer_dask.py", "packed", "Dask, 1,000 items per task by hand", 20_000, "dask", packed=True, quick=True),
    System("ray-tasks", "peer_ray.py", "tasks", "Ray, remote tasks", 1_000, "ray"),
    System("ray-actors", "peer_ray.py", "actors", "Ray, actors with 1,000 items per call", 20_000, "ray", packed=True, quick=True),
    celery("fast", "Celery, Redis as it comes", 500),
    celery("durable", "Celery, Redis with appendfsync always", 500),
    celery("durable-chunks", "as above, Celery's chunks of 1,000", 10_000, True),
    System("bullmq-fast", "peer_bullmq.mjs", "fast", "BullMQ, Redis as it comes", 2_000, needs_redis=True),
    System("bullmq-durable", "peer_bullmq.mjs", "durable", "BullMQ, appendfsync always", 2_000, needs_redis=True, durable=True, quick=True),
    System("hyperqueue", "peer_hyperqueue.py", "processes", "HyperQueue, a process per task", 100, "hyperqueue"),
]
