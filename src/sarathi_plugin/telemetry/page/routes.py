"""The routes, on starlette, which vLLM brings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from sarathi_plugin.telemetry.live.build import Query
from sarathi_plugin.telemetry.live.document import LiveDocument
from sarathi_plugin.telemetry.page import assets
from sarathi_plugin.telemetry.page.gate import COOKIE, COOKIE_S, Gate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

    from sarathi_plugin.telemetry.live.source import LiveSource

ROOT = "/sarathi"
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),  # the charting library sets inline styles
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
LONGEST_FORM = 8192
NOT_READY = "The server is still starting."
NO_LIBRARY = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>Sarathi</title><p>The live page needs plotly: "
    "pip install 'sarathi-plugin[page]'. The figures are at <a href='sarathi/api'>sarathi/api</a> without it."
)


@dataclass
class Page:
    """The page of one API server. source: None until the server has started."""

    gate: Gate
    source: LiveSource | None = None

    def routes(self) -> list[Route]:
        """All of them, below ``/sarathi``."""
        return [
            Route(ROOT, self._page),
            Route(f"{ROOT}/", self._without_slash),
            Route(f"{ROOT}/login", self._sign_in, methods=["POST"]),
            Route(f"{ROOT}/logout", self._sign_out, methods=["POST"]),
            Route(f"{ROOT}/api", self._document),
            Route(f"{ROOT}/api/schema", self._schema),
            Route(f"{ROOT}/static/{{name}}", self._static),
        ]

    def _allows(self, request: Request) -> bool:
        return self.gate.allows(request.headers.get("authorization"), request.cookies.get(COOKIE))

    async def _page(self, request: Request) -> Response:
        if not self._allows(request):
            return _sign_in_page("")
        if assets.library_path() is None:
            return HTMLResponse(NO_LIBRARY, 503, HEADERS)
        hidden = "hidden" if self.gate.open else ""
        return HTMLResponse(assets.html("page.html").replace("{{sign-out}}", hidden), headers=HEADERS)

    async def _without_slash(self, request: Request) -> Response:
        del request
        return RedirectResponse("../sarathi", 308, HEADERS)

    async def _sign_in(self, request: Request) -> Response:
        length = request.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > LONGEST_FORM:
            return _sign_in_page("That is no sign-in form.", 400, up="../")
        form = parse_qs((await request.body()).decode(errors="replace"))
        cookie = self.gate.sign_in(form.get("key", [""])[0])
        if cookie is None and not self.gate.open:
            return _sign_in_page("This is not a key of this server.", up="../")
        # Relative, so that it also works behind a proxy that adds a prefix.
        answer = RedirectResponse("../sarathi", 303, HEADERS)
        if cookie is not None:
            secure = request.url.scheme == "https"
            answer.set_cookie(
                COOKIE, cookie, COOKIE_S, path=_path(request), secure=secure, httponly=True, samesite="strict"
            )
        return answer

    async def _sign_out(self, request: Request) -> Response:
        answer = RedirectResponse("../sarathi", 303, HEADERS)
        answer.delete_cookie(COOKIE, path=_path(request), httponly=True, samesite="strict")
        return answer

    async def _document(self, request: Request) -> Response:
        if not self._allows(request):
            return _refused()
        if self.source is None:
            return JSONResponse({"error": NOT_READY}, 503, HEADERS)
        try:
            query = read_query(request.query_params)
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400, HEADERS)
        problem = self.source.problem_with(query)
        if problem:
            return JSONResponse({"error": problem}, 400, HEADERS)
        return Response(self.source.json(query), 200, HEADERS, "application/json")

    async def _schema(self, request: Request) -> Response:
        if not self._allows(request):
            return _refused()
        return JSONResponse(LiveDocument.model_json_schema(), headers=HEADERS)

    async def _static(self, request: Request) -> Response:
        found = await run_in_threadpool(assets.asset, request.path_params["name"])
        if found is None:
            return JSONResponse({"error": "No such file."}, 404, HEADERS)
        headers = HEADERS | {"Cache-Control": "no-cache", "ETag": found.tag, "Vary": "Accept-Encoding"}
        if request.headers.get("if-none-match") == found.tag:
            return Response(None, 304, headers)
        content = found.content
        if found.packed is not None and "gzip" in request.headers.get("accept-encoding", ""):
            content, headers["Content-Encoding"] = found.packed, "gzip"
        return Response(content, 200, headers, found.kind)


def read_query(parameters: Mapping[str, str]) -> Query:
    """A viewer's wishes from a query string; an empty value is none. Raises ValueError with one sentence."""
    known = {"slo_class", "engine", "window_s"}
    unknown = sorted(set(parameters) - known)
    if unknown:
        raise ValueError(f"Unknown parameter {unknown[0]!r}; known: {', '.join(sorted(known))}.")
    engine, window = parameters.get("engine") or None, parameters.get("window_s") or None
    for name, value in (("engine", engine), ("window_s", window)):
        if value is not None and not (value.isascii() and value.isdecimal() and len(value) < 9):
            raise ValueError(f"{name} must be a whole number, got {value[:40]!r}.")
    return Query(
        slo_class=parameters.get("slo_class") or None,
        engine=None if engine is None else int(engine),
        window_s=60 if window is None else int(window),
    )


def _path(request: Request) -> str:
    return f"{request.scope.get('root_path', '')}{ROOT}"


def _sign_in_page(problem: str, status: int = 401, up: str = "") -> Response:
    """up: from the address it is shown at to where ``sarathi/...`` begins."""
    text = assets.html("login.html").replace("{{problem}}", problem).replace("{{up}}", up)
    return HTMLResponse(text, status, HEADERS | {"WWW-Authenticate": "Bearer"})


def _refused() -> Response:
    sentence = (
        "This needs the server's API key: send it as 'Authorization: Bearer KEY', or sign in at /sarathi."
    )
    return JSONResponse({"error": sentence}, 401, HEADERS | {"WWW-Authenticate": "Bearer"})
