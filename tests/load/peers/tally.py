"""Checks what came back: every task once, with its own content."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass
class Tally:
    """How many tasks have no result, one more than once, or a wrong one; and how many ran more than once."""

    tasks: int
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    ran_twice: int = 0
    never_ran: int = 0

    @property
    def right(self) -> bool:
        return self.lost == self.doubled == self.wrong == 0


FILLING = [bytes([97 + letter]) * 48 for letter in range(26)]


def tally(tasks: int, results: Iterable[bytes], executions: Iterable[bytes] | None = None) -> Tally:
    """Counts over lines `index result`, as runners write them, and lines of the index, as tasks leave them when they run."""
    found = Tally(tasks)
    seen = bytearray(tasks)
    for line in results:
        number, _, result = line.rstrip(b"\n").partition(b" ")
        index = int(number) if number.isdigit() else tasks
        if index >= tasks or result != b"%016d" % index + FILLING[index % 26]:
            found.wrong += 1
        elif seen[index]:
            found.doubled += 1
        else:
            seen[index] = 1
    found.lost = seen.count(0)
    if executions is not None:
        ran = bytearray(tasks)
        for line in executions:
            # A process that was killed while it started may leave a line without a number: no task ran.
            if (number := line.strip()).isdigit() and int(number) < tasks:
                ran[int(number)] = min(ran[int(number)] + 1, 255)
        found.never_ran = ran.count(0)
        found.ran_twice = tasks - ran.count(0) - ran.count(1)
    return found
