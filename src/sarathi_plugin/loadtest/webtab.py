"""A tab for Locust's own web UI: fluidity-index, TTFT, TBT, stalls and SLO attainment, live and with charts.

Locust shows tables in tabs that are added to it; the charts are drawn by a script of ours beside them, with the
charting library of the installed plotly package. Nothing is loaded from elsewhere.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, jsonify, request

from sarathi_plugin.config import ConfigError
from sarathi_plugin.loadtest.live import COLUMNS
from sarathi_plugin.telemetry.page.assets import LIBRARY, asset

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from locust.web import WebUI

    from sarathi_plugin.loadtest.live import Live

KEY, TITLE = "fluidity", "Fluidity"
SCRIPT = Path(__file__).parent / "static" / "tab.js"
KEPT = 600
"""Seconds of the course that are sent: what a chart can show."""


def document(live: Live, state: Mapping[str, Any]) -> dict[str, Any]:
    """What the tab shows: how far the run is, one row a class as text, and one point a second as columns."""
    points = live.course[-KEPT:]
    names = points[0]._fields if points else ()
    return {
        "state": dict(state),
        "titles": list(COLUMNS.values()),
        "rows": [list(row.values()) for row in live.rows()],
        "total": list(live.total().items()),
        "course": {name: [getattr(point, name) for point in points] for name in names},
        "faults": list(live.faults().items()),
        "problem": state.get("problem", ""),
    }


def check_port(host: str, port: int) -> None:
    """Raise ConfigError when the UI cannot be served there: Locust would say so in a traceback."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise ConfigError(f"Cannot serve the web UI on port {port}: {error.strerror or error}.") from error


def attach_tab(ui: WebUI, live: Live, state: Callable[[], Mapping[str, Any]]) -> None:
    """Add the tab, before the UI is started. Its pages are behind Locust's login where that is on."""
    base = "/sarathi"
    routes = Blueprint("sarathi", __name__)

    @routes.route(f"{base}/live")
    @ui.auth_required_if_enabled  # type: ignore[untyped-decorator]
    def live_figures() -> Response:
        answer: Response = jsonify(document(live, state()))
        answer.headers["Cache-Control"] = "no-store"
        return answer

    @routes.route(f"{base}/tab.js")
    @ui.auth_required_if_enabled  # type: ignore[untyped-decorator]
    def script() -> Response:
        return Response(SCRIPT.read_bytes(), mimetype="text/javascript")

    @routes.route(f"{base}/{LIBRARY}")
    @ui.auth_required_if_enabled  # type: ignore[untyped-decorator]
    def library() -> Response:
        found = asset(LIBRARY)
        if found is None:
            return Response("plotly is not installed", 404)
        return Response(found.content, mimetype="text/javascript", headers={"Cache-Control": "max-age=86400"})

    options = ui.environment.parsed_options
    prefix = (options and options.web_base_path) or ""
    ui.app.register_blueprint(routes, url_prefix=prefix or None)
    ui.template_args["extended_tabs"] = [{"title": TITLE, "key": KEY}]

    @ui.app.after_request  # type: ignore[untyped-decorator]
    def add_script(answer: Response) -> Response:
        if request.path.rstrip("/") == prefix and answer.mimetype == "text/html":
            tag = f'<script src="{prefix}{base}/tab.js" defer></script></body>'
            answer.set_data(answer.get_data(as_text=True).replace("</body>", tag))
        return answer
