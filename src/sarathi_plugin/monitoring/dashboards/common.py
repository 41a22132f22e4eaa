"""House defaults of panels, variables and whole dashboards. Needs grafana-foundation-sdk."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from grafana_foundation_sdk.builders import common as shared
from grafana_foundation_sdk.builders import dashboard, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heat_models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from sarathi_plugin.monitoring.names import checked
from sarathi_plugin.monitoring.recording import RECORDED

if TYPE_CHECKING:
    from collections.abc import Sequence

SOURCE = kinds.DataSourceRef(type_val="prometheus", uid="${datasource}")
DOCS = "http://localhost:9090/user"
"""Where the runbooks are served: by Prometheus itself, as in compose.yml. The variable ``docs`` says otherwise."""

ENGINE = 'model_name=~"$model", engine=~"$engine"'
CLASS = f'{ENGINE}, slo_class=~"$class"'
RATE = "[$__rate_interval]"
GREEN, ORANGE, RED = "green", "orange", "red"


class Unit(NamedTuple):
    """How values are shown: Grafana's name of the unit, and what stands at the axis."""

    grafana: str
    axis: str


SHARE = Unit("percentunit", "share")
SECONDS = Unit("s", "seconds")
PER_SECOND = Unit("short", "per second")
TOKENS = Unit("short", "tokens")
TOKENS_PER_SECOND = Unit("short", "tokens per second")
COUNT = Unit("short", "requests")
RATIO = Unit("short", "ratio")
STATE = Unit("short", "1: on, 0: off")


class Query(NamedTuple):
    """One query of a panel. legend: with labels in double braces."""

    expr: str
    legend: str = ""


class Limit(NamedTuple):
    """Where a colour changes. below: values under it are the bad ones."""

    value: float
    below: bool = False


def quantile(q: float, metric: str, labels: str, by: str = "") -> str:
    """A quantile of a histogram; by: labels that stay."""
    keep = f"le, {by}" if by else "le"
    return f"histogram_quantile({q:g}, sum by ({keep}) (rate({metric}_bucket{{{labels}}}{RATE})))"


def quantiles(metric: str, labels: str, by: str = "") -> tuple[Query, ...]:
    """P50 and P99."""
    name = f"{{{{{by}}}}} " if by else ""
    return tuple(Query(quantile(q, metric, labels, by), f"{name}P{q * 100:g}") for q in (0.5, 0.99))


def graph(
    title: str, unit: Unit, queries: Sequence[Query], help_text: str, *, limit: Limit | None = None,
    top: float | None = None, alert: str = "", stacked: bool = False, width: int = 8,
) -> Any:  # fmt: skip
    """Lines over time, the axis from 0. alert: name of the alert whose runbook the panel links to."""
    panel = timeseries.Panel().axis_label(unit.axis).line_width(2).fill_opacity(30 if stacked else 6)
    panel = panel.show_points(kinds.VisibilityMode.AUTO).axis_soft_min(0)
    legend = shared.VizLegendOptions().display_mode(kinds.LegendDisplayMode.LIST).show_legend(True)
    panel = panel.legend(legend.placement(kinds.LegendPlacement.BOTTOM))
    panel = panel.tooltip(shared.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI))
    if stacked:
        panel = panel.stacking(shared.StackingConfig().mode(kinds.StackingMode.NORMAL))
    if limit is not None:
        style = shared.GraphThresholdsStyleConfig().mode(kinds.GraphThresholdsStyleMode.DASHED)
        panel = panel.thresholds_style(style)
    if top is not None:
        panel = panel.max(top)
    return _finish(panel, title, unit, queries, help_text, limit, alert).span(width).height(8)


def number(
    title: str, unit: Unit, query: str, help_text: str, *, limit: Limit | None = None, alert: str = "",
    decimals: int | None = None, width: int = 4,
) -> Any:  # fmt: skip
    """The latest value, large."""
    reduce = shared.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
    panel = stat.Panel().reduce_options(reduce).graph_mode(kinds.BigValueGraphMode.AREA)
    panel = panel.color_mode(kinds.BigValueColorMode.VALUE).no_value("no data")
    if decimals is not None:
        panel = panel.decimals(decimals)
    return _finish(panel, title, unit, [Query(query)], help_text, limit, alert).span(width).height(4)


def buckets(title: str, unit: Unit, metric: str, labels: str, help_text: str, *, width: int = 8) -> Any:
    """A histogram over time."""
    colour = heatmap.HeatmapColorOptions().mode(heat_models.HeatmapColorMode.SCHEME).scheme("Blues").steps(32)
    panel = heatmap.Panel().calculate(False).color(colour).cell_gap(1)
    panel = panel.y_axis(heatmap.YAxisConfig().unit(unit.grafana).axis_label(unit.axis))
    query = prometheus.Dataquery().expr(
        checked(f"sum by (le) (increase({metric}_bucket{{{labels}}}{RATE}))", RECORDED)
    )
    query = query.legend_format("{{le}}").format(PromQueryFormat.HEATMAP).ref_id("A").range()
    panel = panel.title(title).description(help_text).datasource(SOURCE).with_target(query)
    return panel.span(width).height(8)


def listing(title: str, series: str, hidden: Sequence[str], help_text: str, *, width: int = 24) -> Any:
    """One row for each series there was in the time range, its labels as columns."""
    query = (
        prometheus.Dataquery()
        .expr(checked(f"last_over_time({series}[$__range])", RECORDED))
        .format(PromQueryFormat.TABLE)
    )
    drop = models.DataTransformerConfig(
        id_val="organize",
        options={"excludeByName": dict.fromkeys(("Time", "Value", "__name__", *hidden), True)},
    )
    panel = table.Panel().title(title).description(help_text).datasource(SOURCE)
    panel = panel.with_target(query.ref_id("A").instant()).with_transformation(drop)
    return panel.span(width).height(5)


def _finish(
    panel: Any, title: str, unit: Unit, queries: Sequence[Query], help_text: str, limit: Limit | None, alert: str
) -> Any:  # fmt: skip
    for index, query in enumerate(queries):
        target = prometheus.Dataquery().expr(checked(query.expr, RECORDED)).legend_format(query.legend)
        panel = panel.with_target(target.ref_id(chr(ord("A") + index)).range())
    if alert:
        panel = panel.links([_runbook(alert)])
    panel = panel.thresholds(_thresholds(limit)).title(title).description(help_text)
    return panel.unit(unit.grafana).datasource(SOURCE)


def _thresholds(limit: Limit | None) -> Any:
    config = dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE)
    if limit is None:
        return config.steps([models.Threshold(color=GREEN)])
    low, high = (RED, GREEN) if limit.below else (GREEN, RED)
    return config.steps([models.Threshold(color=low), models.Threshold(value=limit.value, color=high)])


def _runbook(alert: str) -> Any:
    link = dashboard.DashboardLink(f"Runbook: {alert}").type(models.DashboardLinkType.LINK)
    return link.url(f"${{docs}}/runbooks.md#{alert.lower()}").target_blank(True)


def choice(name: str, label: str, query: str, *, everything: bool = True, last: bool = False) -> Any:
    """A variable with the values of a label. everything: several, all by default; last: the list starts at its end."""
    order = models.VariableSort.ALPHABETICAL_DESC if last else models.VariableSort.ALPHABETICAL_ASC
    variable = dashboard.QueryVariable(name).label(label).query(checked(query)).datasource(SOURCE)
    variable = variable.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(order)
    if everything:
        every = models.VariableOption(text="All", value="$__all", selected=True)
        variable = variable.multi(True).include_all(True).all_value(".*").current(every)
    return variable


def variables() -> list[Any]:
    """Those of every dashboard: data source, model, engine, SLO class, and where the runbooks are."""
    return [
        dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"),
        choice("model", "Model", "label_values(sarathi_build_info, model_name)"),
        choice("engine", "Engine", 'label_values(sarathi_build_info{model_name=~"$model"}, engine)'),
        choice("class", "SLO class", 'label_values(sarathi_deadlines_met_total{model_name=~"$model"}, slo_class)'),
        dashboard.ConstantVariable("docs").label("Runbooks at").value(DOCS),
    ]  # fmt: skip


def restarts() -> Any:
    """A mark at every start of a server. The value is its time, so many samples are one mark."""
    expr = checked('max by (instance, model_name) (sarathi_start_time_seconds{model_name=~"$model"}) * 1000')
    query = dashboard.AnnotationQuery().name("Restarts").datasource(SOURCE).enable(True)
    query = query.icon_color("purple").expr(expr).use_value_for_time(True).step("15s")
    return query.title_format("Restart").text_format("{{model_name}} on {{instance}}")


def render(
    title: str, uid: str, about: str, rows: Sequence[tuple[str, Sequence[Any]]], more: Sequence[Any] = ()
) -> str:  # fmt: skip
    """A dashboard as JSON. rows: titles and their panels, laid out from left to right; more: further variables."""
    board = dashboard.Dashboard(title).uid(uid).description(about).tags(["sarathi", "vllm"]).editable()
    board = board.refresh("10s").time("now-30m", "now").timezone("browser")
    board = board.tooltip(models.DashboardCursorSync.CROSSHAIR).annotation(restarts())
    for variable in [*variables(), *more]:
        board = board.with_variable(variable)
    others = dashboard.DashboardLink("Sarathi").type(models.DashboardLinkType.DASHBOARDS).tags(["sarathi"])
    runbooks = dashboard.DashboardLink("Runbooks").type(models.DashboardLinkType.LINK)
    board = board.link(others.keep_time(True).include_vars(True))
    board = board.link(runbooks.url("${docs}/runbooks.md").target_blank(True))
    number_of = iter(range(1, 1000))
    for name, panels in rows:
        board = board.with_row(dashboard.Row(name).id(next(number_of)))
        for panel in panels:
            board = board.with_panel(panel.id(next(number_of)))
    content = json.loads(JSONEncoder(sort_keys=True).encode(board.build()))
    for thing in [*content["links"], *content["annotations"]["list"], *_panel_links(content)]:
        thing.pop("placement", None)  # the SDK's default would hide links and marks in a menu
    return json.dumps(content, indent=1) + "\n"


def _panel_links(content: dict[str, Any]) -> list[dict[str, Any]]:
    return [link for panel in content["panels"] for link in panel.get("links", ())]
