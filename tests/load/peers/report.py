"""From what was measured to a table."""

import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

FDATASYNCS = 200
NOISE = (
    " Others on the machine used {others_cores_median:.2f} cores (median; most {others_cores_most:.2f})."
    " A synced write of 64 bytes took {fdatasync_us_median:.0f} µs"
    " (median; {fdatasync_us_least:.0f} to {fdatasync_us_most:.0f})."
)


def machine() -> dict[str, Any]:
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    return {
        "date": time.strftime("%Y-%m-%d %H:%M %Z"),
        "cores": os.cpu_count(),
        "processor": model.partition(": ")[2],
        "kernel": platform.release(),
        "load": os.getloadavg(),
    }


def fdatasync_us(folder: Path) -> float:
    """The median of small synced writes: what a durable acknowledgement costs here at least."""
    taken = []
    path = folder / "fdatasync"
    with open(path, "wb", buffering=0) as file:
        for _ in range(FDATASYNCS):
            file.write(b"x" * 64)
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append((time.perf_counter() - started) * 1e6)
    path.unlink()
    return statistics.median(taken)


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Over the rounds whose results were right; the others are counted as failed and nothing else."""
    right = [one for one in rounds if one["right"]]
    whole: dict[str, Any] = {"rounds": len(right), "failed_rounds": len(rounds) - len(right)}
    if not right:
        return whole
    rates = [one["per_second"] for one in right]
    latency = sorted(us for one in right for us in one["latency_us"])
    return whole | {
        "tasks": right[0]["tasks"],
        "median_per_second": statistics.median(rates),
        "best_per_second": max(rates),
        "worst_per_second": min(rates),
        "cpu_us": statistics.median(one["cpu_us"] for one in right),
        "rss_mb": max(one["rss_mb"] for one in right),
        "latency_p50_us": latency[len(latency) // 2] if latency else None,
        "latency_p99_us": latency[len(latency) * 99 // 100] if latency else None,
        "latency_tasks": len(latency),
    }


def noise(systems: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Cores that others on the machine used meanwhile, and what a small synced write took, by round and system."""
    right = [one for system in systems.values() for one in system["rounds"] if one["right"]]
    if not right:
        return {}
    others, synced = ([one[name] for one in right] for name in ("others_cores", "fdatasync_us"))
    return {
        "others_cores_median": statistics.median(others),
        "others_cores_most": max(others),
        "fdatasync_us_median": statistics.median(synced),
        "fdatasync_us_least": min(synced),
        "fdatasync_us_most": max(synced),
    }


def ratios(systems: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Each Sheaf over the fastest peer of a kind: the median over rounds of the ratio in a round."""
    measured = {name: one for name, one in systems.items() if one["summary"].get("median_per_second")}
    peers = [name for name in measured if not name.startswith("sheaf")]

    def rate(name: str) -> float:
        return measured[name]["summary"]["median_per_second"]

    # As configured: one that then lost a task is no reason to compare with a slower one.
    durable = [name for name in peers if measured[name]["durable"]]
    found: dict[str, Any] = {}
    for kind, names in (
        ("durable peer with an outcome per task", [name for name in durable if not measured[name]["packed"]]),
        ("durable peer", durable),
        ("peer", peers),
    ):
        if not names:
            continue
        fastest = max(names, key=rate)
        found[kind] = {"fastest": fastest, "sheaf": {}}
        for name in measured.keys() - set(peers):
            pairs = zip(measured[name]["rounds"], measured[fastest]["rounds"], strict=True)
            each = [ours["per_second"] / theirs["per_second"] for ours, theirs in pairs if ours["right"] and theirs["right"]]
            if each:
                found[kind]["sheaf"][name] = {"median": statistics.median(each), "least": min(each), "most": max(each)}
    return found


def markdown(report: dict[str, Any]) -> str:
    """The report as people read it."""
    systems = report["systems"]
    lines = []
    if "machine" in report:
        lines += [
            "{date}, {cores} cores, {processor}.".format(**report["machine"])
            + (NOISE.format(**report["noise"]) if report["noise"] else ""),
            "",
        ]
    lines += [
        "| system | what | tasks/s, median | least to most | tasks a round | p50 | p99 | CPU µs/task | peak RSS MB | durable |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, one in systems.items():
        found = one["summary"]
        if "median_per_second" not in found:
            reason = next((each["error"] for each in one["rounds"] if "error" in each), "its results were not right")
            lines.append(f"| {name} | {one['what']} | **not counted**: {cell(reason)} | | | | | | | |")
            continue
        failed = f" ({found['failed_rounds']} rounds not counted)" if found["failed_rounds"] else ""
        durable = ("yes" if one["survived"] else "meant to be, **lost tasks**") if one["durable"] else "no"
        lines.append(
            f"| {name} | {one['what']} | {found['median_per_second']:,.0f}{failed} "
            f"| {found['worst_per_second']:,.0f} to {found['best_per_second']:,.0f} | {found['tasks']:,} "
            f"| {duration(found['latency_p50_us'])} | {duration(found['latency_p99_us'])} "
            f"| {found['cpu_us']:,.1f} | {found['rss_mb']:,.0f} | {durable} |"
        )
    for kind, ratio in report["ratios"].items():
        each = sorted(ratio["sheaf"].items(), key=lambda item: -item[1]["median"])
        told = ", ".join(f"{name} {one['median']:,.1f} ({one['least']:,.1f} to {one['most']:,.1f})" for name, one in each)
        lines += ["", f"Times the fastest {kind} ({ratio['fastest']}), ratio in the same round: {told}."]
    if any(one["kills"] for one in systems.values()):
        lines += [
            "",
            "| system | killed | of | lost | ran twice | results twice | wrong | the client | s to the end |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
    for name, one in systems.items():
        if "kills_as" in one:
            continue
        for whom, found in one["kills"].items():
            if "lost" not in found:
                lines.append(f"| {name} | {whom} | **not tried**: {cell(found['error'])} | | | | | | |")
                continue
            lost = f"**{found['lost']}**, to be submitted again" if found["lost"] else "0"
            lines.append(
                f"| {name} | {whom} | {found['tasks']} | {lost} | {found['ran_twice']} | {found['doubled']} | {found['wrong']} "
                f"| {cell(found['client'])} | {found['seconds_after']:.1f} |"
            )
    lines += [f"\nSKIPPED: {name}: {reason}" for name, reason in report["skipped"].items()]
    return "\n".join(lines) + "\n"


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def duration(us: float | None) -> str:
    if us is None:
        return ""
    return f"{us:.0f} µs" if us < 1_000 else f"{us / 1_000:.1f} ms"
