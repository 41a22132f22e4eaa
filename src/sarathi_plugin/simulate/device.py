"""The emulated device: how long steps take, and when they end on a pipeline of stages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sarathi_plugin.core import NS_PER_S
from sarathi_plugin.simulate.clock import EPOCH_NS

if TYPE_CHECKING:
    import numpy as np

    from sarathi_plugin.core import StepShape
    from sarathi_plugin.simulate.disturbance import Disturbance
    from sarathi_plugin.simulate.spec import EngineSpec
    from sarathi_plugin.steptime.machine import ProfileModel

DRAWS = 4096


class Device:
    """One engine's machine. Steps go through its stages in order, one at a time each.

    rng: draws the residuals, one per step that carries anything, so that arms under one seed meet the same noise.
    disturbance: what else happens to the machine. busy_ns: work done, per stage. free_ns: when each stage is done.
    """

    def __init__(
        self,
        model: ProfileModel,
        spec: EngineSpec,
        rng: np.random.Generator,
        disturbance: Disturbance | None = None,
    ) -> None:
        self._model = model
        self._rng = rng
        self._disturbance = disturbance
        self._steps = 0
        self._stages = spec.pipeline_parallel_size
        self._draft_ns = round(spec.speculation.draft_s * NS_PER_S) if spec.speculation else 0
        self._host_ns = model.profile.host_s * NS_PER_S
        self._host_request_ns = model.profile.host_request_s * NS_PER_S
        self._draws: list[float] = []
        self.free_ns = [0] * self._stages
        self.busy_ns = [0] * self._stages

    def host_ns(self, running: int) -> int:
        """Time the host takes between two steps with so many running requests."""
        return int(self._host_ns + self._host_request_ns * running)

    def run(self, shape: StepShape, submit_ns: int) -> int:
        """Take a step at ``submit_ns``; returns when its tokens are there."""
        if not self._draws:
            self._draws = self._rng.random(DRAWS).tolist()[::-1]
        took = self._model.draw_ns(shape, self._draws.pop())
        if shape.decode_rows:
            took += self._draft_ns
        if self._disturbance is not None:
            begins = max(submit_ns, self.free_ns[0]) - EPOCH_NS
            took = int(took * self._disturbance.factor(self._steps, begins))
            self._steps += 1
        part, end = took // self._stages, submit_ns
        for stage in range(self._stages):
            end = max(end, self.free_ns[stage]) + part
            self.free_ns[stage] = end
            self.busy_ns[stage] += part
        return end
