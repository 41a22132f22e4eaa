import pytest

from sarathi_plugin.config import ConfigError
from sarathi_plugin.monitoring import expand
from sarathi_plugin.monitoring.files import dashboards

WINDOW = expand.Window(start=1000, end=2800, step=7.5, scrape=5)


def test_time_variables_are_those_of_grafana():
    assert WINDOW.built_in == {"__rate_interval": "20000ms", "__interval": "7500ms", "__range": "1800000ms"}
    assert expand.Window(0, 60, 30, 5).built_in["__rate_interval"] == "35000ms"


def test_both_forms_of_a_variable():
    assert expand.substitute('a{b=~"$model"}[${range}]', {"model": "m", "range": "5m"}) == 'a{b=~"m"}[5m]'


def test_a_variable_nobody_defined_is_an_error():
    with pytest.raises(ConfigError, match=r"\$modle"):
        expand.substitute("$modle", {"model": "m"})


def test_variables_are_resolved_in_order():
    asked = []

    def ask(selector, label):
        asked.append((selector, label))
        return {"instance": ["a:1", "b:2"]}.get(label, ["x"])

    values = expand.resolve(dashboards()["compare"], WINDOW, {"engine": "1"}, ask)
    assert values["model"] == values["class"] == ".*"
    assert values["engine"] == "1"
    assert (values["arm_a"], values["arm_b"]) == ("a:1", "b:2")  # the first and the last
    assert ('sarathi_deadlines_met_total{model_name=~".*"}', "slo_class") in asked
    assert values["docs"].startswith("http://localhost:9090")


def test_legends():
    assert expand.legend("{{kind}} P99", {"kind": "mixed"}) == "mixed P99"
    assert expand.legend("{{ gone }}x", {}) == "x"
    assert expand.legend("", {"__name__": "n", "b": "2", "a": "1"}) == "a=1, b=2"
