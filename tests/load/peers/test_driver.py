"""python3 -m unittest, in this folder: what the comparison is judged by notices what it should."""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from driver import QUICK, Driver
from processes import Tree
from report import markdown, summary
from session import RunnerFailed, Session, Silent
from systems import Places, System
from tally import tally


def line(index: int, result_of: int | None = None) -> bytes:
    of = index if result_of is None else result_of
    return b"%d %016d%s\n" % (index, of, bytes([97 + of % 26]) * 48)


class TallyTest(unittest.TestCase):
    def test_what_is_right_is_right_in_any_order(self) -> None:
        self.assertTrue(tally(100, [line(index) for index in reversed(range(100))]).right)

    def test_a_lost_result_is_noticed(self) -> None:
        found = tally(100, [line(index) for index in range(100) if index != 7])
        self.assertEqual((found.lost, found.doubled, found.wrong), (1, 0, 0))
        self.assertFalse(found.right)

    def test_a_doubled_result_is_noticed(self) -> None:
        found = tally(100, [line(index) for index in [*range(100), 7]])
        self.assertEqual((found.lost, found.doubled, found.wrong), (0, 1, 0))
        self.assertFalse(found.right)

    def test_the_result_of_another_task_is_wrong(self) -> None:
        found = tally(100, [line(index, 8 if index == 7 else index) for index in range(100)])
        self.assertEqual((found.lost, found.doubled, found.wrong), (1, 0, 1))

    def test_content_that_is_cut_or_of_no_task_is_wrong(self) -> None:
        self.assertEqual(tally(1, [line(0)[:-5]]).wrong, 1)
        self.assertEqual(tally(1, [line(0), line(1)]).wrong, 1)
        self.assertEqual(tally(1, [line(0), b"rubbish\n"]).wrong, 1)

    def test_executions_are_counted(self) -> None:
        found = tally(4, [line(index) for index in range(4)], [b"%016d\n" % index for index in (0, 1, 1, 2)])
        self.assertEqual((found.ran_twice, found.never_ran), (1, 1))

    def test_a_torn_trace_is_no_execution(self) -> None:
        found = tally(2, [], [b"%016d\n" % 0, b"\n", b"rubbish"])
        self.assertEqual((found.ran_twice, found.never_ran), (0, 1))


class TreeTest(unittest.TestCase):
    def test_processes_that_have_ended_count_and_those_of_others_do_not(self) -> None:
        script = (
            "import subprocess, sys; subprocess.run([sys.executable, '-c', 'sum(range(10**7))']); print(1, flush=True); input()"
        )
        child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdin and child.stdout
        child.stdout.readline()
        tree = Tree(child.pid)
        self.assertGreater(tree.cpu_seconds(), 0.05)
        self.assertNotIn(os.getpid(), [process.pid for process in tree.alive()])
        child.communicate(b"\n")
        self.assertEqual(tree.alive(), [])


RUNNER = """
import json, sys
print(json.dumps({"ready": {"version": "1", "roles": {}}}), flush=True)
for line in sys.stdin:
    command = json.loads(line)
    if command["do"] == "latency":
        print(json.dumps({"latency": {"us": [1.0]}}), flush=True)
        continue
    FAULT
    with open(command["results"], "w") as file:
        for index in range(command["tasks"]):
            file.write(f"{index} {index:016d}" + chr(97 + index % 26) * 48 + chr(10))
    print(json.dumps({"ran": {"seconds": 1.0}}), flush=True)
"""


class Fake:
    """A system whose runner does as a script says."""

    name, warm_up_tasks = "fake", 10

    def __init__(self, fault: str) -> None:
        self.script = RUNNER.replace("FAULT", fault)

    def command(self, *_: object) -> list[str]:
        return [sys.executable, "-c", self.script]

    def environment(self, *_: object) -> dict[str, str]:
        return {}


class DriverTest(unittest.TestCase):
    def measure(self, fault: str) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder)
            driver = Driver(Places(path, path, path, None), replace(QUICK, seconds=0.1), path)
            try:
                return driver.measure(cast(System, Fake(fault)))
            finally:
                shutil.rmtree(driver.results)

    def test_a_runner_that_is_right_is_measured(self) -> None:
        measured = self.measure("pass")
        self.assertTrue(measured["right"])
        self.assertEqual((measured["tasks"], measured["latency_us"]), (10, [1.0]))

    def test_a_runner_that_loses_a_result_is_not_measured(self) -> None:
        with self.assertRaisesRegex(RunnerFailed, "lost=1"):
            self.measure("command['tasks'] -= 1")

    def test_a_runner_that_ends_is_quoted(self) -> None:
        with self.assertRaisesRegex(RunnerFailed, "no such luck"):
            self.measure("sys.exit('no such luck')")

    def test_a_runner_that_says_that_it_failed_is_quoted(self) -> None:
        with self.assertRaisesRegex(RunnerFailed, "out of luck"):
            self.measure("print(json.dumps({'failed': 'out of luck'}), flush=True); continue")

    def test_silence_is_noticed_and_progress_is_not_silence(self) -> None:
        moves = iter(range(3))
        with tempfile.TemporaryDirectory() as folder:
            session = Session(cast(System, Fake("continue")), Places(*[Path(folder)] * 3, None), Path(folder))
            try:
                session.hear("ready", 30)
                session.say(do="run")
                with self.assertRaises(Silent):
                    session.hear("ran", 0.01, lambda: next(moves, None))
            finally:
                session.close()
        # It waited for as long as something moved.
        self.assertIsNone(next(moves, None))


class ReportTest(unittest.TestCase):
    def test_a_round_that_was_not_right_is_not_counted(self) -> None:
        good = {"tasks": 10, "seconds": 1.0, "per_second": 10.0, "cpu_us": 1.0, "rss_mb": 1.0, "latency_us": [1.0, 2.0, 3.0]}
        rounds = [dict(good, right=True), dict(good, right=False, per_second=1e9)]
        counted = summary(rounds)
        self.assertEqual((counted["rounds"], counted["best_per_second"], counted["failed_rounds"]), (1, 10.0, 1))

    def test_what_was_skipped_is_said_and_not_in_the_table(self) -> None:
        text = markdown({"systems": {}, "skipped": {"ray-tasks": "no wheel"}, "noise": {}, "ratios": {}})
        self.assertIn("SKIPPED: ray-tasks: no wheel", text)


if __name__ == "__main__":
    unittest.main()
