"""Step-time models: how long a step will take, from its shape. A plugin like any other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sarathi_plugin.hookspecs import hookimpl
from sarathi_plugin.steptime.online import OnlineModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from sarathi_plugin.core import StepTimeModel


@hookimpl
def register_step_time_models(register: Callable[[str, Callable[[], StepTimeModel]], None]) -> None:
    """Offer our models."""
    register("online", OnlineModel)
