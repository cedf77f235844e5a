"""A runner and the conversation with it: a JSON object per line, each way."""

import json
import queue
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from processes import Tree
from systems import Places, System

# How often is looked whether something moves.
PROGRESS_SECONDS = 0.5


class RunnerFailed(Exception):
    """The runner ended, or said that it cannot."""


class Silent(Exception):
    """The runner has not answered, and nothing has moved."""


class Session:
    """A started system."""

    def __init__(self, system: System, places: Places, directory: Path, extra: dict[str, str] | None = None) -> None:
        self.name, self.directory = system.name, directory
        self.environment = system.environment(places, directory) | (extra or {})
        self.tree = Tree()
        with open(directory / "runner.log", "ab") as log:
            self.runner = subprocess.Popen(
                system.command(places, directory),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self.environment,
                cwd=directory,
            )
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.runner.stdout
        for line in self.runner.stdout:
            # Libraries print too; what is said to the driver is an object.
            if line.startswith(b"{"):
                self._lines.put(line)
        self._lines.put(None)

    def say(self, **command: Any) -> None:
        assert self.runner.stdin
        try:
            self.runner.stdin.write(json.dumps(command).encode() + b"\n")
            self.runner.stdin.flush()
        except OSError as error:
            raise RunnerFailed(self.last_words()) from error

    def hear(self, what: str, patience_seconds: float, progress: Callable[[], object] = lambda: None) -> Any:
        """The answer, waited for as long as `progress` changes within the patience."""
        seen, since = progress(), time.monotonic()
        while True:
            try:
                line = self._lines.get(timeout=min(patience_seconds, PROGRESS_SECONDS))
            except queue.Empty:
                now = progress()
                if now != seen:
                    seen, since = now, time.monotonic()
                elif time.monotonic() - since >= patience_seconds:
                    raise Silent(f"no answer, and nothing moved for {patience_seconds:.0f} s") from None
                continue
            if line is None:
                raise RunnerFailed(self.last_words())
            answer = json.loads(line)
            if what not in answer:
                raise RunnerFailed(str(answer.get("failed", answer)))
            return answer[what]

    def last_words(self) -> str:
        """The last line of its log."""
        lines = (self.directory / "runner.log").read_text(errors="replace").strip().splitlines()
        return f"the client ended: {lines[-1][:200]}" if lines else "the client ended without a word"

    def restart(self, commands: list[list[str]]) -> None:
        with open(self.directory / "servers.log", "ab") as log:
            for command in commands:
                subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment, cwd=self.directory
                )

    def close(self) -> None:
        """Lets it end by itself, then ends what is left."""
        assert self.runner.stdin
        try:
            self.runner.stdin.close()
            self.runner.wait(5)
        except (OSError, subprocess.TimeoutExpired):
            self.runner.kill()
        self.tree.end()
        self._reader.join(5)
        if self.runner.stdout and not self._reader.is_alive():
            self.runner.stdout.close()
