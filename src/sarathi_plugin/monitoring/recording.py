"""Recording rules: what dashboards and alerts ask again and again, computed once."""

from __future__ import annotations

from dataclasses import dataclass

from sarathi_plugin.monitoring.names import checked
from sarathi_plugin.monitoring.objective import BURN_WINDOWS, ERROR_BUDGET, FLUIDITY_WINDOWS

ENGINE = "job, instance, model_name, engine"


@dataclass(frozen=True, slots=True)
class Recording:
    """One recorded series. record: its name, as level:what:how."""

    record: str
    expr: str


def by_class(expr: str) -> str:
    """Summed over all but model and SLO class."""
    return f"sum by (model_name, slo_class) ({expr})"


def fluidity(window: str) -> Recording:
    """Share of token deadlines met; no sample while no deadline fell."""
    met = by_class(f"rate(sarathi_deadlines_met_total[{window}])")
    missed = by_class(f"rate(sarathi_deadlines_missed_total[{window}])")
    return Recording(f"sarathi:fluidity_index:rate{window}", checked(f"{met} / ({met} + {missed} > 0)"))


def burn(window: str) -> Recording:
    """How many times faster than allowed requests that are not fluid use up the error budget."""
    fluid = by_class(f"rate(sarathi_fluid_requests_total[{window}])")
    ended = by_class(f"rate(sarathi_requests_finished_total[{window}])")
    return Recording(
        f"sarathi:fluidity_burn:rate{window}", checked(f"(1 - {fluid} / ({ended} > 0)) / {ERROR_BUDGET}")
    )


def budget_share(window: str) -> Recording:
    """Mean predicted step time as a share of D_d, per class: at 1 a step takes all the time a token has."""
    predicted = f"sum by ({ENGINE}) (rate(sarathi_step_predicted_seconds_total[{window}]))"
    steps = f"sum by ({ENGINE}) (rate(sarathi_step_prediction_error_ratio_count[{window}]))"
    expr = f"({predicted} / ({steps} > 0)) / on ({ENGINE}) group_right () sarathi_slo_tbt_seconds"
    return Recording(f"sarathi:step_share_of_deadline:rate{window}", checked(expr))


def prediction_error(window: str) -> Recording:
    """Mean of |predicted - measured| / measured over the steps of an engine."""
    error = f"sum by ({ENGINE}) (rate(sarathi_step_prediction_error_ratio_sum[{window}]))"
    steps = f"sum by ({ENGINE}) (rate(sarathi_step_prediction_error_ratio_count[{window}]))"
    return Recording(f"sarathi:step_prediction_error:mean{window}", checked(f"{error} / ({steps} > 0)"))


RECORDINGS: dict[str, tuple[Recording, ...]] = {
    "sarathi-fluidity": tuple(fluidity(window) for window in FLUIDITY_WINDOWS),
    "sarathi-burn": tuple(burn(window) for window in BURN_WINDOWS),
    "sarathi-steps": (budget_share("1m"), budget_share("5m"), prediction_error("5m")),
}
"""Groups of rules by name."""

RECORDED = frozenset(rule.record for group in RECORDINGS.values() for rule in group)
