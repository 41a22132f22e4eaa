"""The tables of ``headline.py``: ratios paired by seed, with their intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sarathi_plugin.search.repeats import kind_of, mean_interval

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

OURS = "sarathi-static"
DOCUMENTS, DOCUMENTS_SHARE = "arxiv-like", 0.5
"""On real servers its runs have this share of the requests: each lasts as long as several chats."""


def capacity_rows(runs: Iterable[dict[str, Any]], arms: Sequence[str]) -> list[dict[str, Any]]:
    """A row for every profile, traffic and objective. runs: plain searches with seed, arm and result."""
    by_key: dict[tuple[str, str, str], dict[str, list[dict[str, Any]]]] = {}
    for run in sorted(runs, key=lambda run: run["seed"]):
        key = run["profile"], run["traffic"], run["objective"]
        by_key.setdefault(key, {}).setdefault(run["arm"], []).append(run)
    rows = []
    for (profile, traffic, objective), of_arm in by_key.items():
        ours = [run["capacity"] for run in of_arm[OURS]]
        row: dict[str, Any] = {
            "profile": profile,
            "traffic": traffic,
            "objective": objective,
            "target_s": of_arm[OURS][0]["target_s"],
        }
        for arm in arms:
            rates = [run["capacity"] for run in of_arm[arm]]
            ratios = [a / b for a, b in zip(ours, rates, strict=True) if b > 0]
            limits = [kind_of(run["limit"]) for run in of_arm[arm]]
            row[arm] = {
                "capacity": with_interval(rates),
                "by_seed": rates,
                "limit": max(limits, key=limits.count),
                "sarathi_over_it": with_interval(ratios) if len(ratios) == len(ours) else None,
            }
        rows.append(row)
    return rows


def with_interval(values: list[float]) -> list[float | None]:
    """[mean, low, high] of the 95 % interval; the last two are None of a single value."""
    found = mean_interval(values)
    return [values[0], None, None] if found is None else list(found)


def markdown(summary: dict[str, Any], arms: Sequence[str]) -> str:
    """Both tables for people."""
    lines = [
        "# Sarathi-Serve's headline, one engine",
        "",
        f"Requests per second by the paper's criterion, "
        f"{summary['requests']} requests x {len(summary['seeds'])} seeds; "
        "bisected to 2.5 %.",
        "In brackets the capacity of `sarathi-static` over it, paired by seed, with the 95 % interval.",
        "",
        "| machine | traffic | P99 TBT at most | " + " | ".join(arms) + " |",
        "| --- | --- | --- |" + " --- |" * len(arms),
    ]
    for row in summary["rows"]:
        head = [row["profile"], row["traffic"], f"{row['target_s']:.3g} s ({row['objective']})"]
        lines.append("| " + " | ".join(head + [cell(arm, row[arm]) for arm in arms]) + " |")
    pipe = summary["pipeline"]
    lines += [
        "",
        f"Two pipeline stages of {pipe['profile']}, {pipe['requests']} requests at {pipe['rate']:g} a second:",
        "",
        "| traffic | policy | stages idle | TBT P50 / P99 | tokens/s |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in pipe["rows"]:
        idle = " / ".join(f"{share:.1%}" for share in row["stage_idle"])
        lines.append(
            f"| {row['traffic']} | {row['label']} | {idle} | {row['tbt_p50_s']:.3g} / {row['tbt_p99_s']:.3g} s | "
            f"{row['tokens_per_s']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def cell(arm: str, found: dict[str, Any]) -> str:
    """One capacity, how far ours is above it, and what limits it."""
    ratio, text = found["sarathi_over_it"], f"{found['capacity'][0]:.3g}"
    if arm != OURS and ratio is not None:
        spread = f", {ratio[1]:.2f} to {ratio[2]:.2f}" if ratio[1] is not None else ""
        text += f" (x{ratio[0]:.2f}{spread})"
    return f"{text}; {found['limit']}"


def live_markdown(kept: dict[str, Any]) -> str:
    """The table of real servers. kept: setting, what was measured beforehand, and a row an arm with every repeat."""
    setting, measured, rows = kept["setting"], kept["measured"], kept["rows"]
    decode_ms, budgets = 1000 * measured["decode_s"], measured["budgets"]
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    lines = [
        "# Sarathi-Serve's headline on real servers",
        "",
        f"Tiny Llama on {setting['machine']}, a core for the engine and one for the client; requests per second by "
        f"the paper's criterion, {setting['requests']} requests "
        f"({setting['requests'] * DOCUMENTS_SHARE:.0f} of {DOCUMENTS}) x {setting['seeds']} seeds, bisected to 10 %. "
        f"A step of decodes alone takes {decode_ms:.1f} ms: P99 TBT within 5 (strict) and 25 of them (relaxed), median "
        f"scheduling delay within 100; `{OURS}` with budgets of {budgets['strict']} and {budgets['relaxed']} tokens: "
        "what kept to the target beside decodes.",
        f"In brackets the capacity of `{OURS}` over it, paired by seed, with the 95 % interval.",
        "",
        "| traffic | P99 TBT at most | " + " | ".join(arms) + " |",
        "| --- | --- |" + " --- |" * len(arms),
    ]
    groups: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["traffic"], row["objective"]), {})[row["arm"]] = row
    for (traffic, objective), of_arm in groups.items():
        ours = of_arm[OURS]["by_repeat"]
        cells = []
        for arm, row in of_arm.items():
            rates = row["by_repeat"]
            ratios = [a / b for a, b in zip(ours, rates, strict=True) if b > 0]
            limit = row["limits"][0]["what"] if row["limits"] else "none met"
            paired = with_interval(ratios) if len(ratios) == len(ours) else None
            cells.append(
                cell(arm, {"capacity": with_interval(rates), "limit": limit, "sarathi_over_it": paired})
            )
        target = f"{1000 * of_arm[OURS]['tbt_s']:.0f} ms ({objective})"
        lines.append("| " + " | ".join([traffic, target, *cells]) + " |")
    return "\n".join(lines) + "\n"
