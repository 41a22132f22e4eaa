"""The bound for a machine of the simulator: a step-time profile as a cost model, a trace as jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.search.bound import capacity_bound
from sarathi_plugin.search.relaxation import CostModel, Job
from sarathi_plugin.steptime.machine import linear_seconds

if TYPE_CHECKING:
    from sarathi_plugin.load.targets import Targets
    from sarathi_plugin.steptime.profile import StepTimeProfile
    from sarathi_plugin.workload.trace import Trace

TABLE = 8192


def cost_of(profile: StepTimeProfile, *, overlapped: bool) -> CostModel:
    """Steps at the profile's mean. overlapped: host work runs beside the device (async scheduling), for nothing."""
    return CostModel(
        linear_ns=linear_seconds(profile, TABLE) * NS_PER_S,
        host_ns=0.0 if overlapped else profile.host_s * NS_PER_S,
        decode_step_ns=profile.decode_step_s * NS_PER_S,
        decode_row_ns=profile.decode_row_s * NS_PER_S,
        decode_context_token_ns=profile.decode_context_token_s * NS_PER_S,
        prefill_step_ns=profile.prefill_step_s * NS_PER_S,
        prefill_token_ns=profile.prefill_token_s * NS_PER_S,
        prefill_pair_ns=profile.prefill_pair_s * NS_PER_S,
    )


def jobs_of(trace: Trace, targets: Targets) -> list[Job]:
    """The requests of a trace with what they are judged by."""
    found = []
    for asked in trace.requests:
        slo = targets.of(asked.slo_class)
        first = targets.curve.prefill_ns(asked.prompt_tokens) + slo.ttft_slack_ns
        found.append(Job(asked.offset_ns, asked.prompt_tokens, asked.output_tokens, slo.tbt_ns, first))
    return found


def rate_bound(trace: Trace, targets: Targets, profile: StepTimeProfile, *, overlapped: bool) -> float:
    """Requests per second that no scheduler can exceed at 99 % fluid requests, on steps of the profile's mean time."""
    return trace.rate * capacity_bound(jobs_of(trace, targets), cost_of(profile, overlapped=overlapped))
