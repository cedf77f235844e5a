"""What a tree of processes uses, from /proc, and ending it."""

import ctypes
import os
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
SAMPLE_SECONDS = 0.1
PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Processes whose parent ends become this one's children, so that no daemon leaves the tree."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


@dataclass
class Process:
    pid: int
    parent: int
    state: str
    """Seconds of itself and of its children that it has waited for."""
    cpu_seconds: float
    rss_bytes: int


def read(pid: int) -> Process | None:
    """A process, or nothing if it has just ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name may hold spaces and brackets; what follows it does not.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    ticks = sum(int(field) for field in fields[11:15])
    return Process(pid, int(fields[1]), fields[0].decode(), ticks / TICK, int(fields[21]) * PAGE)


def command_line(pid: int) -> str:
    with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read().replace(b"\0", b" ").decode(errors="replace")
    return ""


class Tree:
    """The descendants of this process, with what it has adopted; or, given a root, that process and its descendants."""

    def __init__(self, root: int | None = None) -> None:
        self.root = root

    def processes(self) -> list[Process]:
        """All of them, and those that have ended and were not waited for."""
        every = [found for name in os.listdir("/proc") if name.isdigit() and (found := read(int(name)))]
        children: dict[int, list[Process]] = {}
        for process in every:
            children.setdefault(process.parent, []).append(process)
        if self.root is None:
            found = children.get(os.getpid(), [])
        else:
            found = [process for process in every if process.pid == self.root]
        # Grows while it is walked.
        for process in found:
            found += children.get(process.pid, [])
        return found

    def alive(self) -> list[Process]:
        return [process for process in self.processes() if process.state != "Z"]

    def cpu_seconds(self) -> float:
        return sum(process.cpu_seconds for process in self.processes())

    def rss_bytes(self) -> int:
        return sum(process.rss_bytes for process in self.alive())

    def busiest(self, match: str) -> int | None:
        """The process that has worked most of those whose command line has this and that have no such child."""
        processes = [process for process in self.alive() if match in command_line(process.pid)]
        parents = {process.parent for process in processes}
        leaves = [process for process in processes if process.pid not in parents]
        return max(leaves, key=lambda process: process.cpu_seconds).pid if leaves else None

    def end(self) -> None:
        """Ends all, however often they start each other again."""
        for _ in range(100):
            alive = self.alive()
            if not alive:
                break
            for process in alive:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            time.sleep(0.02)
            reap()
        reap()


def reap() -> None:
    """Lets go of children that have ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


class Meter:
    """While it is entered, what a tree uses of processor and memory, and what everybody else uses of the processor."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.peak_rss_bytes = 0
        self.cpu_seconds = 0.0
        self.others_cores = 0.0

    def __enter__(self) -> Self:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._at, self._cpu, self._busy = time.monotonic(), self.tree.cpu_seconds(), machine_busy_seconds()
        self._own = time.process_time()
        self._thread.start()
        return self

    def _sample(self) -> None:
        while True:
            self.peak_rss_bytes = max(self.peak_rss_bytes, self.tree.rss_bytes())
            if self._over.wait(SAMPLE_SECONDS):
                return

    def __exit__(self, *_: object) -> None:
        self.cpu_seconds = self.tree.cpu_seconds() - self._cpu
        busy = machine_busy_seconds() - self._busy - self.cpu_seconds - (time.process_time() - self._own)
        self.others_cores = max(0.0, busy / (time.monotonic() - self._at))
        self._over.set()
        self._thread.join()


def machine_busy_seconds() -> float:
    """What all processes and the kernel have used, and what the hypervisor has kept."""
    with open("/proc/stat", "rb") as file:
        user, nice, system, _idle, _wait, irq, softirq, steal = (int(field) for field in file.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICK
