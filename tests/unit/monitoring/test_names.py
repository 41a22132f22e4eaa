import pytest

from sarathi_plugin.monitoring import names
from sarathi_plugin.monitoring.alerts import Alert, Condition
from sarathi_plugin.monitoring.recording import RECORDED


def test_all_kinds_of_series_are_found_in_an_expression():
    expr = 'sum(rate(sarathi_tbt_seconds_bucket{a="sarathi_no"}[5m])) + vllm:num_requests_running / sarathi:x:rate5m'
    assert names.used(expr) == {"sarathi_tbt_seconds_bucket", "vllm:num_requests_running", "sarathi:x:rate5m"}


@pytest.mark.parametrize(
    "expr",
    [
        "sarathi_deadline_met_total",  # misspelt
        "sarathi_deadlines_met",  # without _total
        "sarathi_tbt_seconds",  # a histogram has no series of its own name
        "sarathi_requests_overdue_sum",  # a gauge has no sum
        "vllm:gpu_cache_usage_perc",  # of another version of vLLM
        "sarathi:fluidity_index:rate7m",  # not recorded
    ],
)
def test_an_unknown_series_cannot_be_used(expr):
    with pytest.raises(ValueError, match="no such series"):
        names.checked(f"sum({expr})", RECORDED)


def test_what_is_exported_and_recorded_passes():
    expr = "sarathi_tbt_seconds_bucket + sarathi_deadlines_met_total + sarathi:fluidity_index:rate5m"
    assert names.checked(expr, RECORDED) == expr


def test_an_alert_on_an_unknown_series_cannot_be_written():
    alert = Alert("A", "info", "", "", (Condition("sarathi_typo", ">", 1),))
    with pytest.raises(ValueError, match="sarathi_typo"):
        _ = alert.expr
