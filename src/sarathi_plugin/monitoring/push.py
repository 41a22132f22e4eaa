"""Dashboards into a Grafana, through its HTTP API. The token comes from the environment and goes nowhere else."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from grafana_api.grafana_api import GrafanaClientError, GrafanaException, GrafanaUnauthorizedError
from grafana_api.grafana_face import GrafanaFace

from sarathi_plugin.config import ConfigError
from sarathi_plugin.monitoring.files import dashboards

if TYPE_CHECKING:
    from collections.abc import Callable

TOKEN = "GRAFANA_TOKEN"
TIMEOUT_S = 15.0
STORED = ("id", "version")
"""What Grafana itself writes into a dashboard."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What is to be done with one dashboard: ``create``, ``update``, ``keep`` (nothing differs)."""

    content: dict[str, Any]
    action: str
    version: int | None


def push(
    url: str, folder: str, docs_url: str | None, *, dry_run: bool, overwrite: bool, say: Callable[[str], None]
) -> None:
    """Create or update every dashboard; one that differs in Grafana only with ``overwrite``.

    Nothing is written unless all of it can be. Raises ConfigError for a bad address, a refused token, a conflict, and
    whatever else Grafana says.
    """
    grafana = Grafana(url)
    grafana.check()
    uid = grafana.find_folder(folder)
    plans = [grafana.plan(with_docs(content, docs_url)) for content in dashboards().values()]
    changed = [plan.content["title"] for plan in plans if plan.action == "update"]
    if changed and not overwrite and not dry_run:
        raise ConfigError(
            f"Grafana has other versions of {', '.join(changed)}; --overwrite replaces them, and what was changed "
            "there is lost."
        )
    if uid is None:
        say(f"{'would create' if dry_run else 'create'} folder {folder}")
        uid = None if dry_run else grafana.create_folder(folder)
    for plan in plans:
        lost = " (needs --overwrite)" if dry_run and plan.action == "update" and not overwrite else ""
        say(f"{'would ' if dry_run else ''}{plan.action} {plan.content['title']}{lost}")
        if not dry_run and plan.action != "keep":
            grafana.write(plan, uid)


def with_docs(content: dict[str, Any], docs_url: str | None) -> dict[str, Any]:
    """A dashboard whose links to runbooks start at another address."""
    if docs_url is not None:
        for variable in content["templating"]["list"]:
            if variable["name"] == "docs":
                variable["query"] = docs_url.rstrip("/")
    return content


class Grafana:
    """What we need of Grafana's API, failures as one sentence."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url if "://" in url else f"//{url}")
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or port == -1:
            raise ConfigError(
                "Give the address of Grafana as https://HOST[:PORT][/PATH], without a password in it, not "
                f"{parts.hostname or url!r}."
            )
        token = os.environ.get(TOKEN)
        if not token:
            raise ConfigError(
                f"Set {TOKEN} in the environment to a token of a Grafana service account (role Editor)."
            )
        self.url = url.rstrip("/")
        prefix = parts.path.strip("/")
        self._face = GrafanaFace(
            token, host=parts.hostname if port is None else f"{parts.hostname}:{port}", protocol=parts.scheme,
            url_path_prefix=f"{prefix}/" if prefix else "", timeout=TIMEOUT_S,
        )  # fmt: skip

    def check(self) -> None:
        """Whether a Grafana answers there at all."""
        health = self._call(self._face.api.GET, "/health")
        if not (isinstance(health, dict) and "database" in health):
            raise self._stranger()

    def find_folder(self, title: str) -> str | None:
        """The uid of a folder by its title, None without one."""
        for found in self._call(self._face.folder.get_all_folders):
            if found["title"] == title:
                return str(found["uid"])
        return None

    def create_folder(self, title: str) -> str:
        """Make it; returns its uid."""
        return str(self._call(self._face.folder.create_folder, title)["uid"])

    def plan(self, content: dict[str, Any]) -> Planned:
        """What has to be done so that Grafana has this dashboard."""
        try:
            stored = self._face.dashboard.get_dashboard(content["uid"])["dashboard"]
        except GrafanaClientError as error:
            if error.status_code != 404:
                raise self._refused(error) from error
            return Planned(content, "create", None)
        except (GrafanaException, requests.RequestException, ValueError, TypeError, KeyError) as error:
            raise self._explained(error) from error
        version = stored.get("version")
        same = _bare(stored) == _bare(content)
        return Planned(content, "keep" if same else "update", version)

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
