"""What requests are held to, whoever serves: SLO classes and the prefill curve, as the settings of the plugin say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from sarathi_plugin import plugins
from sarathi_plugin.config import (
    CURVES,
    MIN_TBT_MS,
    ConfigError,
    SloClassSettings,
    Strict,
    load_curve,
    make_settings,
)
from sarathi_plugin.load.targets import Targets

if TYPE_CHECKING:
    from sarathi_plugin.steptime.profile import StepTimeProfile
    from sarathi_plugin.workload.trace import Trace


class Promise(Strict):
    """The part of the plugin's settings that says what is promised; unset keys keep the plugin's defaults."""

    tbt_ms: float | None = Field(default=None, ge=MIN_TBT_MS, description="D_d of the default class, ms.")
    ttft_slack_ms: float | None = Field(
        default=None, ge=0, description="TTFT slack of the default class, ms."
    )
    classes: dict[str, SloClassSettings] = Field(default_factory=dict, description="SLO classes by name.")
    default_class: str | None = Field(default=None, description="Class of a request that names none.")
    prefill_curve: str | None = Field(
        default=None, description="A shipped curve or a file; that of the profile when unset."
    )

    def settings(self, curve: str | None = None) -> dict[str, Any]:
        """As settings of the plugin; curve: of a machine, used where the promise names none."""
        data: dict[str, Any] = self.model_dump(mode="json", exclude_defaults=True)
        if curve is not None:
            data.setdefault("prefill_curve", curve)
        return data

    def targets(self, curve: str | None = None) -> Targets:
        """What timelines are judged by. Raises ConfigError."""
        settings = make_settings(**self.settings(curve))
        classes = plugins.make_slo_classes(settings, plugins.build_plugin_manager())
        return Targets(classes[settings.default_class], load_curve(settings.prefill_curve), classes)


def curve_of(profile: StepTimeProfile) -> str | None:
    """The name of a profile's shipped prefill curve, None when it has none."""
    return profile.name if (CURVES / f"{profile.name}.json").is_file() else None


def check_classes(trace: Trace, targets: Targets) -> None:
    """Raise ConfigError when the traffic asks for a class that nobody defined."""
    known = targets.classes or {}
    for request in trace.requests:
        if request.slo_class and request.slo_class not in known:
            raise ConfigError(
                f"The workload asks for the SLO class {request.slo_class!r}, which is not defined; known: "
                f"{', '.join(known)}."
            )
