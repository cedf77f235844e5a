"""Measures Sheaf and its peers in alternating rounds, then kills them and counts what they lose. See README.md.

Python's standard library only. `cargo xtask peers` installs the peers, builds Sheaf and calls this.
"""

import argparse
import fcntl
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import processes
from processes import Meter
from report import fdatasync_us, machine, markdown, noise, ratios, summary
from session import RunnerFailed, Session, Silent
from systems import SYSTEMS, Places, System
from tally import Tally, tally

TASKS_MAX = 5_000_000
"""Whom a system may have that can be killed; the server is what holds the tasks that were acknowledged."""
VICTIMS = ("worker", "gcs", "raylet", "server")
"""Bytes of a line that an execution leaves."""
TRACE_BYTES = 17


@dataclass(frozen=True)
class Settings:
    """How much is done."""

    rounds: int
    """How long a system is measured for, about."""
    seconds: float
    """Tasks one at a time, at most, and how long at most."""
    latency_tasks: int
    latency_seconds: float
    """Tasks while a kill is tried, and how long one takes."""
    kill_tasks: int
    task_seconds: float
    """How long a client may see nothing happen before it counts as stuck."""
    patience_seconds: float
    victims: tuple[str, ...]


FULL = Settings(5, 5, 1_000, 1, 1_000, 0.01, 20, VICTIMS)
QUICK = Settings(1, 1, 100, 0.5, 300, 0.01, 8, ("server",))


class Driver:
    def __init__(self, places: Places, settings: Settings, work: Path) -> None:
        self.places, self.settings, self.work = places, settings, work
        # Of the measured runs: in memory where there is a file system for that, so that nobody's fsync waits for them.
        memory = Path("/dev/shm")
        self.results = Path(tempfile.mkdtemp(prefix="peers-", dir=memory if os.access(memory, os.W_OK) else work))
        self.tasks: dict[str, int] = {}

    @contextmanager
    def session(self, system: System, extra: dict[str, str] | None = None) -> Iterator[tuple[Session, dict[str, Any]]]:
        """A system in an empty directory of its own, ready."""
        directory = self.work / system.name
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        session = Session(system, self.places, directory, extra)
        try:
            yield session, session.hear("ready", 90)
        finally:
            session.close()

    def keep(self, found: dict[str, Any]) -> None:
        """What is known so far, should the rest not come to its end."""
        (self.work.parent / "rounds.json").write_text(json.dumps(found, indent=1))

    def run(self, session: Session, tasks: int) -> tuple[float, Tally]:
        results = self.results / "measured"
        session.say(do="run", tasks=tasks, results=str(results), flush=False)
        seconds = session.hear("ran", 120)["seconds"]
        with open(results, "rb") as lines:
            return seconds, tally(tasks, lines)

    def measure(self, system: System) -> dict[str, Any]:
        """One round of a system."""
        with self.session(system) as (session, ready):
            warm_up_seconds, checked = self.run(session, system.warm_up_tasks)
            if not checked.right:
                raise RunnerFailed(f"its results are not right: {checked}")
            # Before anything large: what the disk still has to write would count.
            synced_us = fdatasync_us(self.work)
            session.say(do="latency", tasks=self.settings.latency_tasks, seconds=self.settings.latency_seconds)
            latency_us = session.hear("latency", 60)["us"]
            if system.name not in self.tasks:
                self.tasks[system.name] = self.enough(session, system.warm_up_tasks / warm_up_seconds)
            tasks = self.tasks[system.name]
            with Meter(session.tree) as meter:
                seconds, checked = self.run(session, tasks)
            return {
                "version": ready["version"],
                "tasks": tasks,
                "seconds": seconds,
                "right": checked.right,
                "checked": asdict(checked),
                "per_second": tasks / seconds,
                "cpu_us": meter.cpu_seconds / tasks * 1e6,
                "rss_mb": meter.peak_rss_bytes / 1e6,
                "others_cores": meter.others_cores,
                "fdatasync_us": synced_us,
                "latency_us": latency_us,
            }

    def enough(self, session: Session, per_second: float) -> int:
        """Tasks that keep a system busy for long enough, found by trying: it is faster warm than cold."""
        while True:
            tasks = min(TASKS_MAX, max(10, round(per_second * self.settings.seconds)))
            seconds, _ = self.run(session, tasks)
            if seconds >= 0.8 * self.settings.seconds or tasks == TASKS_MAX:
                return tasks
            per_second = max(tasks / seconds, 1.2 * per_second)

    def kill(self, system: System, whom: str) -> dict[str, Any] | None:
        """Kills one of a system's processes when it has run 30 % of its tasks. Nothing if it has no such process."""
        trace = self.work / f"{system.name}.trace"
        trace.unlink(missing_ok=True)
        results = self.work / f"{system.name}.results"
        results.unlink(missing_ok=True)
        tasks = self.settings.kill_tasks
        command = {"tasks": tasks, "results": str(results), "flush": True}
        patience_seconds = system.patience_seconds or self.settings.patience_seconds

        def progress() -> tuple[int, int]:
            return size(trace), size(results)

        extra = {"PEERS_TRACE": str(trace), "PEERS_TASK_SECONDS": str(self.settings.task_seconds)}
        with self.session(system, extra) as (session, ready):
            role = ready["roles"].get(whom)
            if role is None:
                return None
            session.say(do="run", **command)
            until = time.monotonic() + 60
            while size(trace) < 0.3 * tasks * TRACE_BYTES:
                if time.monotonic() > until or session.runner.poll() is not None:
                    raise RunnerFailed(f"it did not come to run 30 % of {tasks} tasks; {session.last_words()}")
                time.sleep(0.005)
            pid = session.tree.busiest(role["match"]) if role["match"] else session.runner.pid
            if pid is None:
                raise RunnerFailed(f"no process of it has {role['match']!r} in its command line")
            killed = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            client = "went on"
            if role["match"]:
                time.sleep(0.5)
                session.restart(role["restart"])
            else:
                # The client went with it: another one is started, and asked what it still knows.
                session.close()
                session = Session(system, self.places, session.directory, extra)
                client = "started again"
            try:
                if not role["match"]:
                    session.hear("ready", 90)
                    session.say(do="resume", **command)
                session.hear("ran", patience_seconds, progress)
            except RunnerFailed as error:
                client = str(error)
            except Silent as silent:
                client = f"stuck: {silent}"
            seconds = time.monotonic() - killed
            if not role["match"]:
                session.close()
        with open(trace, "rb") as executions, maybe(results) as lines:
            found = tally(tasks, lines, executions)
        return {**asdict(found), "client": client, "seconds_after": seconds, "must_resubmit": found.lost > 0}


def size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@contextmanager
def maybe(path: Path) -> Iterator[Any]:
    """The lines of a file; none if it was never made."""
    if not path.exists():
        yield []
        return
    with open(path, "rb") as file:
        yield file


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def compare(driver: Driver, systems: list[System], kills: bool, quick: bool) -> dict[str, Any]:
    """All rounds, then all kills; when it must be quick, not of systems that take minutes to come back."""
    settings = driver.settings
    skipped: dict[str, str] = {}
    for system in systems:
        if reason := system.missing(driver.places):
            skipped[system.name] = reason
            say(f"SKIPPED: {system.name}: {reason}")
    systems = [system for system in systems if system.name not in skipped]
    found: dict[str, dict[str, Any]] = {
        system.name: {"what": system.what, "durable": system.durable, "packed": system.packed, "rounds": [], "kills": {}} for system in systems
    }
    report = {"machine": machine(), "settings": asdict(settings)}
    for number in range(settings.rounds):
        # Another order each time, so that nobody always follows the same neighbour.
        shift = number * len(systems) // settings.rounds
        for system in systems[shift:] + systems[:shift]:
            try:
                measured = driver.measure(system)
            except (RunnerFailed, Silent) as error:
                measured = {"right": False, "error": str(error)}
            found[system.name]["rounds"].append(measured)
            say(f"round {number + 1}: {system.name}: {brief(measured)}")
            driver.keep(found)
    for system in systems:
        tried = kills and system.kills_as is None and (system.patience_seconds is None or not quick)
        for whom in settings.victims if tried else ():
            try:
                lost = driver.kill(system, whom)
            except (RunnerFailed, Silent) as error:
                lost = {"error": str(error)}
            if lost is not None:
                found[system.name]["kills"][whom] = lost
                say(f"{whom} killed: {system.name}: {lost}")
                driver.keep(found)
    for system in systems:
        if system.kills_as in found:
            found[system.name]["kills_as"] = system.kills_as
            found[system.name]["kills"] = found[system.kills_as]["kills"]
    for one in found.values():
        one["summary"] = summary(one["rounds"])
        one["survived"] = one["kills"].get("server", {}).get("lost", 0) == 0
    return {**report, "systems": found, "skipped": skipped, "noise": noise(found), "ratios": ratios(found)}


def brief(measured: dict[str, Any]) -> str:
    if not measured["right"]:
        return f"NOT COUNTED: {measured.get('error') or measured['checked']}"
    return "{tasks:,} tasks, {per_second:,.0f}/s, {cpu_us:.1f} us of processor a task, {rss_mb:.0f} MB".format(**measured)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, help=f"how often each system is measured ({FULL.rounds})")
    parser.add_argument("--seconds", type=float, help=f"how long each time, about ({FULL.seconds:.0f})")
    parser.add_argument(
        "--quick", action="store_true", help="fewer systems, one short round, only servers killed: about three minutes"
    )
    parser.add_argument("--no-kills", action="store_true", help="only measure")
    parser.add_argument("--only", action="append", metavar="NAME", help="only systems whose name begins so; may be repeated")
    parser.add_argument("--programs", type=Path, required=True, help="the folder of sheaf, sheaf-peers and bootstrap-examples")
    parser.add_argument("--venvs", type=Path, required=True, help="the folder with a venv for each peer in Python")
    parser.add_argument("--node", type=Path, required=True, help="the folder with node_modules")
    parser.add_argument("--python", type=Path, help="a Python with awslambdaric")
    parser.add_argument("--out", type=Path, required=True, help="where report.json, report.md and the logs go")
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    settings = QUICK if arguments.quick else FULL
    given = {name: value for name in ("rounds", "seconds") if (value := getattr(arguments, name)) is not None}
    settings = replace(settings, **given)
    if settings.rounds < 1 or settings.seconds <= 0:
        sys.exit("--rounds and --seconds must be positive")
    only = tuple(arguments.only or [""])
    systems = [system for system in SYSTEMS if system.name.startswith(only) and (system.quick or not arguments.quick)]
    if not systems:
        sys.exit(f"--only {' '.join(only)}: there are {', '.join(system.name for system in SYSTEMS)}")
    work = arguments.out.absolute() / "work"
    work.mkdir(parents=True, exist_ok=True)
    with open(work / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"{work} is in use by another comparison: wait for it, or give another folder with --out")
        return judge(arguments, settings, systems, work)


def judge(arguments: argparse.Namespace, settings: Settings, systems: list[System], work: Path) -> int:
    """Compares, and writes the report; fails if a result of Sheaf's was not right."""
    processes.adopt_orphans()
    # As Ctrl-C does: what was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    # As said on the command line, not where links lead: a venv's Python is a link to another one.
    absolute = {name: getattr(arguments, name).absolute() for name in ("programs", "venvs", "node")}
    driver = Driver(Places(**absolute, python=arguments.python and arguments.python.absolute()), settings, work)
    try:
        report = compare(driver, systems, not arguments.no_kills, arguments.quick)
    finally:
        processes.Tree().end()
        shutil.rmtree(driver.results)
    text = markdown(report)
    (arguments.out / "report.json").write_text(json.dumps(report, indent=1))
    (arguments.out / "report.md").write_text(text)
    print(text)
    wrong = [name for name, one in report["systems"].items() if one["summary"]["failed_rounds"]]
    return 1 if any(name.startswith("sheaf") for name in wrong) else 0


if __name__ == "__main__":
    sys.exit(main())
