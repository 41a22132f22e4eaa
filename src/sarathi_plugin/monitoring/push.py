"""Dashboards into a Grafana, through its HTTP API. The token comes from the environment and goes nowhere else."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import requests
from grafana_api.grafana_api import GrafanaClientError, GrafanaException, GrafanaUnauthorizedError
from grafana_api.grafana_face import GrafanaFace

from sarathi_plugin.address import parts_of
from sarathi_plugin.config import ConfigError
from sarathi_plugin.monitoring.files import dashboards

if TYPE_CHECKING:
    from collections.abc import Callable

TOKEN = "GRAFANA_TOKEN"
TIMEOUT_S = 15.0
STORED = ("id", "version")
"""What Grafana itself writes into a dashboard."""

DONE = {"create": "created", "update": "updated", "move": "moved", "keep": "kept"}


@dataclass(frozen=True, slots=True)
class Planned:
    """What is to be done with one dashboard: ``create``, ``update``, ``move``, ``keep`` (nothing differs).

    elsewhere: title of the folder that it is in, when that is not the wanted one; empty otherwise.
    """

    content: dict[str, Any]
    action: str
    version: int | None = None
    elsewhere: str = ""


def push(
    url: str, folder: str, docs_url: str | None, *, dry_run: bool, overwrite: bool, say: Callable[[str], None]
) -> None:
    """Create or update every dashboard; one that differs in Grafana, or is in another folder, only with ``overwrite``.

    Nothing is written unless all of it can be. Raises ConfigError for a bad address, a refused token, a conflict, and
    whatever else Grafana says.
    """
    if not folder.strip():
        raise ConfigError("Give --folder a name: a folder of Grafana cannot be without one.")
    contents = [with_docs(content, docs_url) for content in dashboards().values()]
    grafana = Grafana(url)
    grafana.check()
    uid = grafana.find_folder(folder)
    plans = [grafana.plan(content, uid) for content in contents]
    if overwrite:
        plans = [replace(p, action="move") if p.action == "keep" and p.elsewhere else p for p in plans]
    changed = [plan.content["title"] for plan in plans if plan.action == "update"]
    if changed and not overwrite and not dry_run:
        raise ConfigError(
            f"Grafana has other versions of {', '.join(changed)}; --overwrite replaces them, and what was changed "
            "there is lost."
        )
    if dry_run:
        if uid is None and any(plan.action != "keep" for plan in plans):
            say(f"would create folder {folder}")
        for plan in plans:
            lost = " (needs --overwrite)" if plan.action == "update" and not overwrite else ""
            say(f"would {_line(plan.action, plan)}{lost}")
    else:
        _write(grafana, plans, folder, uid, say)


def _write(
    grafana: Grafana, plans: list[Planned], folder: str, uid: str | None, say: Callable[[str], None]
) -> None:
    """Do what is planned and say it when it is done. Raises ConfigError, which says how much was."""
    writes = sum(plan.action != "keep" for plan in plans)
    written = 0
    try:
        if uid is None and writes:
            uid = grafana.create_folder(folder)
            say(f"created folder {folder}")
        for plan in plans:
            if plan.action != "keep":
                grafana.write(plan, uid)
                written += 1
            say(_line(DONE[plan.action], plan))
    except ConfigError as error:
        raise ConfigError(
            f"{str(error).removesuffix('.')}; {written} of {writes} dashboards were written before."
        ) from error


def _line(verb: str, plan: Planned) -> str:
    stays = (
        f" in folder {plan.elsewhere} (--overwrite moves it)"
        if plan.elsewhere and plan.action == "keep"
        else ""
    )
    return f"{verb} {plan.content['title']}{stays}"


def with_docs(content: dict[str, Any], docs_url: str | None) -> dict[str, Any]:
    """A dashboard whose links to runbooks start at another address. Raises ConfigError for what is none."""
    if docs_url is not None:
        if parts_of(docs_url) is None:
            raise ConfigError(
                "Give --docs-url as http(s)://HOST[:PORT][/PATH], the folder that serves runbooks.md."
            )
        for variable in content["templating"]["list"]:
            if variable["name"] == "docs":
                variable["query"] = docs_url.rstrip("/")
    return content


class Grafana:
    """What we need of Grafana's API, failures as one sentence."""

    def __init__(self, url: str) -> None:
        parts = parts_of(url)
        if parts is None or parts.username is not None or parts.password is not None:
            # What was given is not repeated: there may be a password in it.
            raise ConfigError(
                "Give the address of Grafana as https://HOST[:PORT][/PATH], without a password in it."
            )
        token = os.environ.get(TOKEN)
        if not token:
            raise ConfigError(
                f"Set {TOKEN} in the environment to a token of a Grafana service account (role Editor)."
            )
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise ConfigError(
                f"The token in {TOKEN} holds a space, a line end or a letter that no token has: copy it again."
            )
        self.url = url.rstrip("/")
        prefix = parts.path.strip("/")
        self._face = GrafanaFace(
            token, host=parts.netloc, protocol=parts.scheme,
            url_path_prefix=f"{prefix}/" if prefix else "", timeout=TIMEOUT_S,
        )  # fmt: skip

    def check(self) -> None:
        """Whether a Grafana answers there at all."""
        health = self._call(self._face.api.GET, "/health")
        self._shaped(health, dict, "database")

    def find_folder(self, title: str) -> str | None:
        """The uid of a folder by its title, None without one."""
        found = self._call(self._face.folder.get_all_folders)
        for folder in self._shaped(found, list):
            if self._shaped(folder, dict, "title", "uid")["title"] == title:
                return str(folder["uid"])
        return None

    def create_folder(self, title: str) -> str:
        """Make it; returns its uid."""
        return str(self._shaped(self._call(self._face.folder.create_folder, title), dict, "uid")["uid"])

    def plan(self, content: dict[str, Any], folder_uid: str | None) -> Planned:
        """What has to be done so that Grafana has this dashboard in this folder; None is one that is not there yet."""
        try:
            answer = self._face.dashboard.get_dashboard(content["uid"])
        except GrafanaClientError as error:
            if error.status_code != 404:
                raise self._refused(error) from error
            return Planned(content, "create")
        except (GrafanaException, requests.RequestException, ValueError, TypeError, KeyError) as error:
            raise self._explained(error) from error
        stored = self._shaped(self._shaped(answer, dict, "dashboard")["dashboard"], dict)
        meta = self._shaped(answer.get("meta", {}), dict)
        # A Grafana that does not say where it keeps a dashboard is asked nothing about it.
        elsewhere = meta.get("folderUid", folder_uid) != folder_uid
        same = _bare(stored) == _bare(content)
        return Planned(
            content,
            "keep" if same else "update",
            stored.get("version"),
            str(meta.get("folderTitle") or meta["folderUid"] or "General") if elsewhere else "",
        )

    def write(self, plan: Planned, folder_uid: str | None) -> None:
        """Create or replace one dashboard, unless it changed since it was planned."""
        content = {key: value for key, value in plan.content.items() if key not in STORED}
        if plan.version is not None:
            content["version"] = plan.version
        body = {
            "dashboard": content | {"id": None},
            "folderUid": folder_uid,
            "overwrite": False,
            "message": "pushed by sarathi dashboards push",
        }
        self._call(self._face.dashboard.update_dashboard, body)

    def _shaped(self, answer: Any, kind: type[dict[str, Any]] | type[list[Any]], *keys: str) -> Any:
        """The answer, if it is of this kind and has these keys. Raises ConfigError."""
        if not isinstance(answer, kind) or any(key not in answer for key in keys):
            raise self._stranger()
        return answer

    def _call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return method(*arguments)
        except (GrafanaException, requests.RequestException, ValueError, TypeError, KeyError) as error:
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> ConfigError:
        if isinstance(error, GrafanaClientError):
            return self._refused(error)
        if isinstance(error, GrafanaException):
            return ConfigError(
                f"Grafana at {self.url} failed (HTTP {error.status_code}); see its log and try again."
            )
        if isinstance(error, requests.JSONDecodeError) or not isinstance(error, requests.RequestException):
            return (
                self._stranger()
            )  # grafana-api reads every answer as JSON, and an error's text as an object
        return ConfigError(
            f"Grafana does not answer at {self.url} ({type(error).__name__}): check the address."
        )

    def _refused(self, error: GrafanaClientError) -> ConfigError:
        reason = error.response.get("message", "") if isinstance(error.response, dict) else ""
        status = error.response.get("status", "") if isinstance(error.response, dict) else ""
        if isinstance(error, GrafanaUnauthorizedError):
            return ConfigError(
                f"Grafana at {self.url} does not know the token in {TOKEN} (HTTP 401): make a new one."
            )
        if error.status_code == 403:
            return ConfigError(
                f"The token in {TOKEN} may not do this (HTTP 403): give its account the role Editor."
            )
        if error.status_code == 412 and status == "version-mismatch":
            return ConfigError(
                "Somebody changed the dashboard in Grafana at this moment (HTTP 412): push again."
            )
        if error.status_code == 404:
            return self._stranger()
        return ConfigError(f"Grafana refused (HTTP {error.status_code}): {reason or 'no reason given'}.")

    def _stranger(self) -> ConfigError:
        return ConfigError(f"What answers at {self.url} is not a Grafana: check the address and the path.")


def _bare(content: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key not in STORED}
