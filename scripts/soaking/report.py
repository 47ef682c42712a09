"""What a soak has shown, as text and as JSON."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from flowd.workflow.graph import nodes_of
from flowd.workflow.ids import split_item
from scripts.soaking.ledger import CANCELLED, END, START, Note
from scripts.soaking.recovery import Recovery, recoveries, silences
from scripts.soaking.soak import Outcome

_SHOWN_MAX = 40


def as_dict(outcome: Outcome) -> dict[str, Any]:
    faults = Counter(fault.kind for fault in outcome.faults)
    return {
        "seed": outcome.seed,
        "minutes": outcome.minutes,
        "faults": {kind: faults[kind] for kind in outcome.kinds},
        "never_happened": outcome.missing,
        "executions": outcome.executions,
        "children": outcome.children,
        "ended": dict(sorted(outcome.statuses.items())),
        "given_up_after_three_deaths": outcome.given_up,
        "calls": _calls(outcome.ledger, outcome),
        "requests": {"refused": outcome.refused, "unanswered": outcome.unanswered},
        "signals": outcome.signals,
        "cached": outcome.cached,
        "recovery_s": _recovery_figures(recoveries(outcome.faults, outcome.ledger)),
        "begun_again_after_s": _silence_figures(silences(outcome.faults, outcome.ledger)),
        "healed_after_s": round(outcome.healed_after_s, 1),
        "violations": outcome.violations,
        "verdict": ("holds", "violated", "void")[outcome.exit_code],
    }


def _calls(ledger: Sequence[Note], outcome: Outcome) -> dict[str, int]:
    """Calls that were made again are told apart: as the node has it, or because of a fault."""
    called_again = {
        (execution_id, node["id"])
        for execution_id, definition in outcome.definitions.items()
        for node in nodes_of(definition)
        if node["handler"] in ("ledger_failing", "ledger_polling") or "repeat" in node
    }
    starts = 0
    before: dict[tuple[str, str], str] = {}
    again: Counter[str] = Counter()
    for note in ledger:
        if note.phase == START:
            starts += 1
            last = before.get(note.node)
            if last == END:
                execution_id, node_id = note.node
                is_configured = (execution_id, split_item(node_id)[0]) in called_again
                again["retry" if is_configured else "lost"] += 1
            elif last is not None:
                again["cut short"] += 1
        before[note.node] = note.phase
    return {
        "nodes": len(before),
        "started": starts,
        "ended": sum(note.phase == END for note in ledger),
        "cancelled": sum(note.phase == CANCELLED for note in ledger),
        "again_as_retries": again["retry"],
        "again_cut_short": again["cut short"],
        "again_result_lost": again["lost"],
    }


def _recovery_figures(found: Sequence[Recovery]) -> dict[str, dict[str, float]]:
    groups: defaultdict[str, list[float]] = defaultdict(list)
    for one in found:
        groups[one.kind].append(one.seconds)
        if one.is_alone:
            groups[f"{one.kind}, no other fault near"].append(one.seconds)
    return {
        kind: {"nodes": len(seconds), **_percentiles(seconds)}
        for kind, seconds in sorted(groups.items())
    }


def _silence_figures(found: Sequence[tuple[str, float]]) -> dict[str, dict[str, float]]:
    groups: defaultdict[str, list[float]] = defaultdict(list)
    for kind, seconds in found:
        groups[kind].append(seconds)
    return {
        kind: {"faults": len(seconds), **_percentiles(seconds)}
        for kind, seconds in sorted(groups.items())
    }


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    return {
        "p50": round(_percentile(seconds, 50), 3),
        "p99": round(_percentile(seconds, 99), 3),
        "max": round(max(seconds), 3),
    }


def _percentile(values: Sequence[float], percent: int) -> float:
    """The nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def as_text(outcome: Outcome) -> str:
    told = as_dict(outcome)
    lines = [f"soak: seed {outcome.seed}, {outcome.minutes:g} minutes", "", "faults"]
    lines += [f"  {kind:<20} {count}" for kind, count in told["faults"].items()]
    ended = ", ".join(f"{count} {status}" for status, count in told["ended"].items())
    calls = told["calls"]
    lines += [
        "",
        f"executions             {told['executions']}, {outcome.children} children: {ended}",
        f"nodes called           {calls['nodes']}, {calls['started']} calls",
        f"  again, as configured {calls['again_as_retries']}",
        f"  again, cut short     {calls['again_cut_short']}",
        f"  again, result lost   {calls['again_result_lost']}",
        f"given up after deaths  {outcome.given_up}",
        f"requests               {outcome.refused} refused, {outcome.unanswered} unanswered",
        f"signals recorded       {outcome.signals}",
        f"calls that were saved  {outcome.cached}, by what equal ones had put out",
        f"quiet again after      {outcome.healed_after_s:.1f} s",
        "",
        "recovery, from the fault to the next start of each node it cut short",
    ]
    for kind, one in told["recovery_s"].items():
        lines.append(f"  {kind:<40} {one['nodes']:>5} nodes  {_shown(one)}")
    if told["begun_again_after_s"]:
        lines.append("from the end of a fault of Redis to the next start of any node")
    for kind, one in told["begun_again_after_s"].items():
        lines.append(f"  {kind:<40} {one['faults']:>5} times  {_shown(one)}")
    lines += ["", f"violations             {len(outcome.violations)}"]
    lines += [f"  {one}" for one in outcome.violations[:_SHOWN_MAX]]
    if outcome.missing:
        lines.append(f"void: these never happened: {', '.join(outcome.missing)}")
    lines.append(f"verdict: {told['verdict']}")
    if outcome.exit_code:
        lines.append(f"files: {outcome.folder}")
    return "\n".join(lines)


def _shown(figures: Mapping[str, float]) -> str:
    return f"p50 {figures['p50']:.3f} s  p99 {figures['p99']:.3f} s  max {figures['max']:.3f} s"
