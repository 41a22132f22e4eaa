"""Scheduling policies, one file each. A plugin like any other: it offers them through ``register_policies``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sarathi_plugin.hookspecs import hookimpl
from sarathi_plugin.policies.alternate import Alternate
from sarathi_plugin.policies.fair_batching import FairBatching
from sarathi_plugin.policies.niyama import Niyama
from sarathi_plugin.policies.orca import Orca
from sarathi_plugin.policies.p_pas import PrefillPressure
from sarathi_plugin.policies.prefill_first import PrefillFirst
from sarathi_plugin.policies.request_level import RequestLevel
from sarathi_plugin.policies.sarathi import Sarathi
from sarathi_plugin.policies.sarathi_static import SarathiStatic
from sarathi_plugin.policies.stock import Stock

if TYPE_CHECKING:
    from collections.abc import Callable

    from sarathi_plugin.policies.base import Policy


@hookimpl
def register_policies(register: Callable[[str, type[Policy]], None]) -> None:
    """Offer ours."""
    register("sarathi", Sarathi)
    register("sarathi-static", SarathiStatic)
    register("niyama", Niyama)
    register("fair-batching", FairBatching)
    register("p-pas", PrefillPressure)
    register("vllm", Stock)
    register("orca", Orca)
    register("prefill-first", PrefillFirst)
    register("request-level", RequestLevel)
    register("alternate", Alternate)
