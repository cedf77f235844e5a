"""The task that every peer runs: it gives back its payload. While a kill is tried it also leaves a trace and takes a while."""

import os
import time

TRACE = os.environ.get("PEERS_TRACE")
SECONDS = float(os.environ.get("PEERS_TASK_SECONDS", "0"))


def echo(payload: str) -> str:
    if TRACE:
        # One write at the end of the file: lines of several processes do not mix, and a kill does not lose it.
        file = os.open(TRACE, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, payload[:16].encode() + b"\n")
        os.close(file)
        time.sleep(SECONDS)
    return payload


def echo_all(payloads: list[str]) -> list[str]:
    """For systems whose users pack several items into one task by hand."""
    return [echo(payload) for payload in payloads]


def one(event: str, _context: object) -> str:
    """As a Lambda handler."""
    return echo(event)


def batch(events: list[str], _context: object) -> list[str]:
    """As a Lambda handler that is given many tasks at once."""
    return echo_all(events)
