"""From vLLM's outputs to the request table: who got how many tokens, cheaply while the batch stays the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sarathi_plugin.telemetry.emission import EMPTY

if TYPE_CHECKING:
    from sarathi_plugin.telemetry.emission import Emission
    from sarathi_plugin.telemetry.table import RequestTable


class TokenTaker:
    """One per driver. names: requests of the last outputs, in order."""

    def __init__(self, table: RequestTable, *, speculates: bool) -> None:
        self._table = table
        self._speculates = speculates
        self.names: list[str] = []
        self._known = np.empty(0, bool)
        self._slots = self._ones = EMPTY

    def forget(self) -> None:
        """A request left: its slot may soon belong to another of the same name."""
        self.names = [""]

    def take(self, outs: list[Any], now_ns: int) -> Emission | None:
        """The tokens of one step; None when nobody tracked got one."""
        if self._speculates or any(not out.new_token_ids for out in outs if out.finish_reason is not None):
            outs = [out for out in outs if out.new_token_ids]
            counts = np.array([len(out.new_token_ids) for out in outs], np.int64)
        else:
            counts = self._ones if len(self._ones) == len(outs) else np.ones(len(outs), np.int64)
            self._ones = counts
        names = [out.request_id for out in outs]
        if names != self.names:  # in steady state the same requests yield a token at every step
            rows = [self._table.rows.get(name) for name in names]
            self.names = names
            self._known = np.array([row is not None for row in rows], bool)
            self._slots = np.array([row.slot for row in rows if row is not None], np.int64)
        if not len(self._slots):
            return None
        if len(self._slots) < len(names):
            counts = counts[self._known]
        return self._table.advance(self._slots, counts, now_ns)

    def steady(self, names: list[str]) -> bool:
        """Whether just these requests got the last tokens, all of them tracked."""
        return self.names == names and len(self._slots) == len(names)

    def again(self, now_ns: int) -> Emission:
        """A further token for each of the last batch; the table is told to ``publish`` later."""
        return self._table.advance(self._slots, self._ones, now_ns, publish=False)
