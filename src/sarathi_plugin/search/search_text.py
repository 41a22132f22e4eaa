"""What a search found, in lines for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sarathi_plugin.search.pareto import cost_of, label_of

if TYPE_CHECKING:
    from collections.abc import Sequence

Row = dict[str, Any]


def cost_name(rows: Sequence[Row]) -> str:
    """What the cost is, by what was asked."""
    if not rows:
        return "cost"
    unit = "cost" if rows[0]["priced"] else "device-hours"
    return f"{unit} per million tokens" if rows[0]["load"] is None else f"{unit} per hour"


def lines(report: dict[str, Any]) -> list[str]:
    """The answer: how much was tried, the front, the winner, the live check."""
    rows, took = report["rows"], report["seconds"]
    found = [
        f"{report['tried']} configurations in {took['search']:.0f} s, {report['hopeless']} given up early; finals "
        f"included {took['with_finals']:.0f} s",
        "",
        "Nobody better in cost, fluidity and TTFT at once:",
        *table(report["front"], cost_name(rows)),
        "",
    ]
    winner = report["winner"]
    if winner is None:
        return [*found, "No configuration passed: widen the space, or ask for less."]
    found += [f"Winner: {label_of(winner['config'])}", f"  {winner_text(winner)}", f"  {winner['serve']}"]
    replicas = winner["config"]["replicas"]
    if replicas > 1:
        found.append(f"  {replicas} of them behind a router")
    if "verification" in report:
        found += ["", verification(report["verification"])]
    return found


def table(rows: Sequence[Row], cost: str) -> list[str]:
    """One line a configuration."""
    if not rows:
        return ["  none: all were hopeless"]
    width = max(len(label_of(row["config"])) for row in rows)
    head = f"  {'':<{width}}{cost:>32}{'fluidity':>10}{'TTFT P90':>10}{'capacity':>10}"
    return [head, *(_line(row, width) for row in rows)]


def _line(row: Row, width: int) -> str:
    figures = row["figures"]
    first = figures["ttft_p90_s"]
    rate = "-" if row["capacity"] is None else f"{row['capacity']:.3g}/s"
    shown = "-" if first is None else f"{first:.2f} s"
    mark = "" if row["passed"] else "  does not pass"
    what = f"  {label_of(row['config']):<{width}}{cost_of(row):>32.4g}"
    return f"{what}{figures['fluidity_index']:>10.4f}{shown:>10}{rate:>10}{mark}"


def winner_text(row: Row) -> str:
    """Its figures in the finals."""
    figures = row["figures"]
    money = "" if row["priced"] else " device-hours"
    costs = f"{row['cost_per_hour']:.4g}{money} per hour, {row['per_million_tokens']:.4g}{money} per million tokens"
    quality = f"fluidity-index {figures['fluidity_index']:.4f}, TTFT P90 {figures['ttft_p90_s']:.3g} s"
    if row["load"] is not None:
        return f"carries {row['load']:.3g} requests/s at {costs}; {quality}"
    interval = row["interval_95"]
    spread = f" (95 % {interval[0]:.3g} to {interval[1]:.3g})" if interval else ""
    return f"capacity {row['capacity']:.3g} requests/s{spread} at {costs}; at it {quality}"


def verification(found: dict[str, Any]) -> str:
    """The live check in a sentence or two."""
    live, interval = found["live"], found["live"]["interval_95"]
    spread = (
        f" (95 % {interval[0]:.3g} to {interval[1]:.3g})" if interval else " (one repeat, so no interval)"
    )
    ratio = found["live_over_predicted"]
    by_seed = (
        f" Seed by seed, live is {ratio[0]:.2f} of it (95 % {ratio[1]:.2f} to {ratio[2]:.2f})."
        if ratio
        else ""
    )
    inside = {True: "inside", False: "outside", None: "not compared with"}[found["inside"]]
    return (
        f"Live, one replica: {live['requests_per_s']:.3g} requests/s{spread}; "
        f"the predicted {found['predicted']:.3g} is {inside} the interval.{by_seed}"
    )
