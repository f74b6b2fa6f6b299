"""Write the tables of docs/monitors.md anew from the recorded benchmarks and the bounds in the package.

    python figures/monitors_page.py          rewrites docs/monitors.md between its <!-- table NAME --> marks

Nothing in those tables is typed by hand; a test fails where the page and this script disagree.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from readme import rewritten

from collapse_lab.monitors import bounds
from collapse_lab.tables import markdown

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "monitors.md"
HALVES = {"tuning": "tuning", "held_back": "held back"}


def result(name: str) -> dict[str, Any]:
    """A recorded benchmark."""
    found: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
    return found


def source(found: dict[str, Any], machine: dict[str, Any]) -> str:
    """How the numbers came about."""
    place = machine.get("cpu") or machine["machine"]
    torch = machine.get("torch") or machine["packages"]["torch"]
    commit = found.get("commit") or machine["commit"]
    load = f", load average {machine['load']:.0f}" if "load" in machine else ""
    return f"`{found['command']}`: {place}, {machine['cores']} cores{load}, torch {torch}, commit {commit}."


def bound_table() -> str:
    """Every calibrated bound, and how they were made."""
    table = bounds.load()
    found, shares = table["bounds"], table["bounds"]["share"]
    names = {"std_ratio": "std ratio", "mean_energy": "mean energy", "alpha": "alpha of RankMe"}
    names |= {"outlier_share": "outlier share"}
    sides = [(mode, side) for mode in ("train", "eval") for side in ("healthy", "collapse")]
    rows = [
        {"measure": words} | {f"{mode}: {side}": f"{found[mode][name][side]:.3g}" for mode, side in sides}
        for name, words in names.items()
    ]
    beside = "; ".join(f"{name} {share['healthy']:.2f} and {share['collapse']:.2f}" for name, share in shares.items())
    made = table["made"]
    return (
        f"{markdown(rows)}\n\nBeside a reference, healthy and collapsed from these shares of its values on: {beside}. "
        f"Made by `{made['command']}`: {made['rule']}; {made['tuned_on']}."
    )


def cost_table() -> str:
    """Milliseconds that a reading adds, and the step with a watch over the step without."""
    found = {name: part for name, part in result("monitors").items() if "step_ms" in part}
    rows = []
    for what, part in found.items():
        added = {name: f"{part['added_ms'][name]['median']:.2f}" for name in ("cheap", "standard", "full")}
        ratios = {name: f"{value:.4f}" for name, value in part["step_with_watch_over_step_without"].items()}
        rows.append(
            {"": what, "step, ms": f"{part['step_ms']['median']:.1f}"}
            | {f"{name} adds, ms": value for name, value in added.items()}
            | ratios
        )
    sources = {source(part, part["machine"]) for part in found.values()}
    return f"{markdown(rows)}\n\n{next(iter(found.values()))['how'].capitalize()}. {' '.join(sorted(sources))}"


def memory() -> str:
    """Bytes that a tap holds."""
    part = result("monitors")["memory"]
    sizes = "; ".join(
        f"`{bundle}` " + ", ".join(f"{count / 2**20:.2f} MiB at {size}" for size, count in counts.items())
        for bundle, counts in part["bytes"].items()
    )
    return f"{part['what'].capitalize()}: {sizes}."


def rankme() -> str:
    """RankMe from the second moment beside other ways to it."""
    found = result("rankme")
    ways = "; ".join(
        f"{way}: {part['seconds']['mean']:.2f} ± {part['seconds']['std']:.2f} s (n = {part['seconds']['n']}), "
        f"{part['rank_one']:.3f} for rows that are all equal"
        for way, part in found["results"].items()
    )
    kept = ", ".join(f"{way} {count / 2**20:.0f} MiB" for way, count in found["kept_bytes"].items())
    return f"{found['what']}: {ways}. Held: {kept}. {source(found, found['machine'])}"


def confusion_table() -> str:
    """Labels against verdicts, tuning half + held-back half."""
    found = result("collapse_zoo")
    halves = [found["verdicts"][half]["confusion"] for half in HALVES]
    labels = sorted(set().union(*halves))
    kinds = sorted({kind for half in halves for row in half.values() for kind in row})
    rows = [
        {"label \\ verdict": label} | {k: _pair([Counter(half.get(label, {}))[k] for half in halves]) for k in kinds}
        for label in labels
    ]
    right = "; ".join(
        f"{words}: {part['right_kind']:.1%} of {part['runs']} runs of the right kind, "
        f"{part['sound_or_failed_right']:.1%} rightly sound or failed"
        for half, words in HALVES.items()
        for part in [found["verdicts"][half]]
    )
    return f"{markdown(rows)}\n\nRuns of the tuning half + of the half held back, {found['runs']} in all. {right}."


def _pair(counts: list[int]) -> str:
    return " + ".join(map(str, counts)) if any(counts) else ""


def alarm_table() -> str:
    """False alarms and delays on the half held back, ours beside the rules of others."""
    found = result("collapse_zoo")
    rows = []
    for name, part in found["alarms"]["held_back"].items():
        false, seen, ours = part["false_alarms"], part["collapses"], part["ours_is"]
        low, high = false["interval"]
        median = "-" if seen["median_delay"] is None else f"{seen['median_delay']:g}"
        rows.append(
            {
                "rule": name,
                "false alarms": f"{false['alarms']}",
                "per 10,000 steps": f"{false['per_10000_steps']:.1f} [{low:.1f}, {high:.1f}]",
                "seen": f"{seen['seen']} of {seen['runs']}",
                "too early": f"{seen['before_the_break']}",
                "missed": f"{seen['missed']}",
                "median delay": median,
                "ours earlier / level / later": f"{ours['earlier']} / {ours['level']} / {ours['later']}",
            }
        )
    since, quiet = found["onsets"], found["healthy_runs_with_an_alert"]
    told = (
        f"In both halves the onset holds the break in {since['holds_the_break']} of {since['alerts']} alerts, "
        f"median width {since['median_width']:g} steps. Sound runs with an alert: "
        f"{', '.join(f'{count} read {how}' for how, count in quiet.items())}."
    )
    return f"{markdown(rows)}\n\n{told} {source(found, found['environment'])}"


TABLES: dict[str, Callable[[], str]] = {
    "bounds": bound_table,
    "cost": cost_table,
    "memory": memory,
    "rankme": rankme,
    "confusion": confusion_table,
    "alarms": alarm_table,
}


def page(text: str) -> str:
    """The text of the page with every marked table made anew."""
    return rewritten(text, lambda name: TABLES[name]())


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
