"""Between vLLM's scheduler and a policy: the scheduler's state into a StepView, a StepPlan onto its levers."""

from __future__ import annotations

from itertools import chain, filterfalse, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from sarathi_plugin.core import Prompts, RequestRow, StepShape, StepView
from sarathi_plugin.engine.admission import Admission
from sarathi_plugin.engine.prefix import PrefixHits
from sarathi_plugin.engine.scheduled import Scheduled
from sarathi_plugin.telemetry.emission import EMPTY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sarathi_plugin.core import IntArray, StepPlan
    from sarathi_plugin.engine.parts import Parts


class Adapter:
    """Reads and sets one vLLM scheduler. The levers it moves are put back by ``restore``."""

    def __init__(self, scheduler: Any, parts: Parts) -> None:
        table, policy = parts.table, parts.policy
        self._scheduler = scheduler
        self._table = table
        self._pool = scheduler.kv_cache_manager.block_pool
        self._reorders_waiting = scheduler.policy.value == "fcfs"
        self._gate = (
            "max_num_active_reqs" if hasattr(scheduler, "max_num_active_reqs") else "max_num_running_reqs"
        )
        self._budget: int = scheduler.max_num_scheduled_tokens
        self._cap = getattr(policy, "token_budget", None) or self._budget
        self._active = getattr(scheduler, self._gate)
        self._chunking = scheduler.scheduler_config.enable_chunked_prefill
        self._ahead = scheduler.scheduler_config.async_scheduling
        self._decodes: list[Any] = []
        self._tracked: list[Any] = []
        """Of the decodes those with a row: as long as ``_slots``."""
        self._slots: IntArray = EMPTY
        self._tbt_ns: IntArray = EMPTY
        self._min_tbt_ns = 0
        self._prefills: dict[str, Any] = {}
        self._hits = PrefixHits(scheduler, table, wanted=getattr(policy, "prefix_hits", True))
        self._admission = Admission(scheduler, reorders=self._reorders_waiting)
        self._scheduled = Scheduled(scheduler, table, self._hits, self._admission)
        self._left_to: Sequence[RequestRow] = ()
        """Waiting requests to which the step just planned is left, without the prompts under way."""
        # Where a request decodes only in every so many steps, its context does not grow by one with each.
        self._every_step = (
            getattr(scheduler, "decode_stagger", 1) == 1 and getattr(scheduler, "pp_size", 1) == 1
        )
        self.idle_turns = 0
        self.view = StepView(parts.model, table.tolerance)
        self.view.max_tokens = self._budget
        self.view.max_requests = self._active
        self.view.max_model_tokens = scheduler.max_model_len
        self.view.block_size = scheduler.block_size
        self.view.total_blocks = getattr(self._pool, "num_gpu_blocks", 0)
        self.view.gaps = table.gaps
        self.view.waits = table.waits
        self.view.load_waiting = self._load_waiting
        self.view.load_prompts = self._load_prompts
        self.view.load_row = table.row_at
        self.view.load_need = self._hits.blocks_needed
        self.view.load_overtake = self._may_overtake

    def came(self, request_id: str) -> None:
        """A tracked request arrived."""
        self._hits.came(request_id)

    def left(self, request_id: str) -> None:
        """A request ended, or a turn of a session did."""
        self._scheduled.forget(request_id)

    @property
    def computed(self) -> list[tuple[str, int]]:
        """Prompt chunks of the step scheduled last: (request, tokens)."""
        return self._scheduled.computed

    def fill(self, now_ns: int, free_at_ns: int) -> StepView:
        """Bring the view up to date with the scheduler, before a step."""
        scheduler, view = self._scheduler, self.view
        view.step += 1
        view.previous_ns, view.now_ns = view.now_ns, now_ns
        view.free_at_ns = max(now_ns, free_at_ns)
        running = scheduler.running
        prefills = [request for request in running if request.is_prefill_chunk]
        decodes = running[: len(running) - len(prefills)]
        if prefills != running[len(decodes) :]:  # a plan puts them last
            decodes = [request for request in running if not request.is_prefill_chunk]
        view.prefills = self._prefill_rows(prefills)
        view.waiting_count = len(scheduler.waiting) + len(getattr(scheduler, "kv_holding_waiting", ()))
        view.free_blocks = self._pool.get_num_free_blocks()
        view.resting = self._admission.resting(view.step)
        self._left_to = ()
        self._fill_decodes(decodes)
        return view

    def coast(self, now_ns: int, free_blocks: int) -> StepView:
        """The view of one more step of the same decodes, each a token further."""
        view = self.view
        view.step += 1
        view.previous_ns, view.now_ns = view.now_ns, now_ns
        view.free_blocks = free_blocks
        view.decode_context += view.decodes
        return view

    def _prefill_rows(self, prefills: list[Any]) -> list[RequestRow]:
        found = []
        self._prefills = {}
        for request in prefills:
            self._prefills[request.request_id] = request
            row = self._table.rows.get(request.request_id)
            if row is not None:
                row.computed_tokens = request.num_computed_tokens
                row.total_tokens = request.num_tokens
                found.append(row)
        return found

    def _fill_decodes(self, decodes: list[Any]) -> None:
        view, table = self.view, self._table
        if decodes != self._decodes:  # by identity: in steady state the batch is the same list of requests
            self._decodes = decodes
            rows = [table.rows.get(request.request_id) for request in decodes]
            self._tracked = (
                decodes if None not in rows else [r for r, row in zip(decodes, rows, strict=True) if row]
            )
            self._slots = np.array([row.slot for row in rows if row is not None], np.int64)
            self._tbt_ns = table.tbt_ns[self._slots]
            self._min_tbt_ns = int(self._tbt_ns.min()) if len(self._tbt_ns) else 0
            view.decode_context = sum([request.num_computed_tokens for request in decodes])
        elif self._every_step:
            view.decode_context += view.decodes  # each computed one token since
        else:
            view.decode_context = sum([request.num_computed_tokens for request in decodes])
        view.decodes = len(decodes)
        view.min_decode_tbt_ns = self._min_tbt_ns or 1
        if self._scheduler.num_spec_tokens:
            view.decode_context = sum([request.num_computed_tokens for request in decodes])
            view.decode_tokens = sum(map(self._due_tokens, decodes))
        else:
            view.decode_tokens = len(decodes)
        view.decode_deadline_ns, view.decode_tbt_ns = table.deadline_ns.take(self._slots), self._tbt_ns
        if decodes and self._ahead:
            self._count_steps_in_flight()
        if not len(self._slots):  # only untracked decodes: nothing is due
            view.decode_deadline_ns = np.array([view.free_at_ns + 10**12], np.int64)
            view.decode_tbt_ns = np.ones(1, np.int64)

    def _count_steps_in_flight(self) -> None:
        """Async scheduling: this step yields the token after the ones in flight."""
        view = self.view
        per_step = 1 + self._scheduler.num_spec_tokens
        pending = np.array([-(-r.num_output_placeholders // per_step) for r in self._tracked], np.int64)
        # A token in flight that comes late restarts its schedule when it comes: when the steps in flight end.
        base = np.where(
            pending > 0, np.maximum(view.decode_deadline_ns, view.free_at_ns), view.decode_deadline_ns
        )
        view.decode_deadline_ns = base + pending * self._tbt_ns

    def _load_waiting(self) -> Sequence[RequestRow]:
        self._hits.refresh()
        rows, prompts = [], self._table.prompts
        for request in self._scheduler.waiting:
            row = self._table.rows.get(request.request_id)
            if row is not None and not (self._prefills and row.request_id in self.view.resting):
                if not prompts.waits(row.slot):
                    row.computed_tokens = 0
                row.total_tokens = request.num_tokens
                rows.append(row)
        return rows

    def _load_prompts(self) -> Prompts:
        self._scheduled.look_again()
        self._hits.refresh()
        return self._table.prompts.take(self.view.prefills)

    def apply(self, plan: StepPlan) -> int:
        """Set the levers for one step; returns the token budget that holds."""
        scheduler, view = self._scheduler, self.view
        if self.idle_turns > 1:  # nor did the budget let anybody run: a stock step
            return self._budget
        hold_back = not self.idle_turns  # whatever a policy wants, somebody runs after an empty step
        left_out = self._left_out(plan) if hold_back else []
        budget = self._budget
        if plan.budget is not None:
            need = view.decode_tokens - sum(map(self._due_tokens, left_out))
            # vLLM pads the last token of a prompt with drafts, and admits nobody for whom there is no room for these.
            least = min(need + 1 + scheduler.num_spec_tokens, self._cap) if plan.budget > need else 1
            if plan.budget > need and getattr(scheduler, "need_mamba_block_aligned_split", False):
                # vLLM cuts the chunks of hybrid models down to whole blocks: a smaller one computes nothing.
                least = need + scheduler.cache_config.block_size
            budget = min(self._budget, max(int(plan.budget), need, least))
            scheduler.max_num_scheduled_tokens = budget
        if plan.max_running is not None and hold_back:
            floor = len(scheduler.running) if self._gate == "max_num_running_reqs" else 0
            setattr(scheduler, self._gate, max(floor, min(int(plan.max_running), self._active)))
        if plan.whole_prompts:
            scheduler.scheduler_config.enable_chunked_prefill = False
        if plan.prefills is not None:
            self._order_running(plan.prefills)
        if plan.waiting is not None and self._reorders_waiting:
            self._order_waiting(plan.waiting)
        if left_out:
            self._skip(left_out)
            view.decode_context -= sum(request.num_computed_tokens for request in left_out)
            self._decodes = []  # the context of those does not grow: read it anew
        if plan.skip_prefills and hold_back and self._prefills:
            self._leave_out_prefills(plan)
        return budget

    def _leave_out_prefills(self, plan: StepPlan) -> None:
        """For those that wait, of whom the first must be able to overtake, or for a step of decodes alone."""
        view, rows = self.view, plan.waiting
        admits = plan.max_running is None or plan.max_running > view.running
        if view.waiting_count and admits:
            if rows is None:
                queues = (getattr(self._scheduler, "kv_holding_waiting", ()), self._scheduler.waiting)
                queued = [self._table.rows.get(request.request_id) for request in chain(*queues)]
                rows = [row for row in queued if row is not None]
            if not (rows and view.may_overtake(rows[0])):
                return
            self._left_to = rows
        self._skip(self._prefills.values())

    def _may_overtake(self, row: RequestRow) -> bool:
        return self._admission.may_overtake(row, self._prefills.values())

    def note_turn(self, *, idle: bool) -> None:
        """Tell whether the step just scheduled left the engine idle although there was work."""
        self.idle_turns = self.idle_turns + 1 if idle else 0
        self.view.previous_empty = idle

    def restore(self) -> None:
        """Put every lever back."""
        scheduler = self._scheduler
        scheduler.max_num_scheduled_tokens = self._budget
        setattr(scheduler, self._gate, self._active)
        scheduler.scheduler_config.enable_chunked_prefill = self._chunking
        self._admission.lora.put_back()

    def _order_running(self, rows: Sequence[RequestRow]) -> None:
        """Decodes first, then prompts in the planned order; the tail is vLLM's preemption victim."""
        if not self._prefills:
            return
        left = dict(self._prefills)
        ordered = [left.pop(row.request_id) for row in rows if row.request_id in left]
        self._scheduler.running[:] = [*self._decodes, *ordered, *left.values()]

    def _order_waiting(self, rows: Sequence[RequestRow]) -> None:
        queue = self._scheduler.waiting
        names = [row.request_id for row in rows]
        if names == [request.request_id for request in islice(queue, len(names))]:
            return
        requests = self._scheduler.requests
        # Each once and only who waits, whatever a policy says: a request that is queued twice would end the engine.
        first = dict.fromkeys(request for name in names if (request := requests.get(name)) is not None)
        rest = list(filterfalse(first.__contains__, queue))  # in C: a thousand may wait
        if len(first) + len(rest) > len(queue):
            first = dict.fromkeys(filter(set(queue).__contains__, first))
        queue.clear()
        queue.extend(first)
        queue.extend(rest)

    def _left_out(self, plan: StepPlan) -> list[Any]:
        """Decodes that a plan keeps out of the step: all, or some of the tracked, which the view's columns hold."""
        if plan.skip_decodes:
            return self._decodes
        if not plan.skip_some:
            return []
        return [self._tracked[place] for place in dict.fromkeys(plan.skip_some)]

    def _due_tokens(self, request: Any) -> int:
        """Tokens a decode would take in this step."""
        if not self._scheduler.num_spec_tokens:
            return 1
        return int(
            request.num_tokens_with_spec + request.num_output_placeholders - request.num_computed_tokens
        )

    def _skip(self, requests: Any) -> None:
        # schedule() first advances current_step, then leaves out whoever is not yet eligible.
        eligible = self._scheduler.current_step + 2
        for request in requests:
            request.next_decode_eligible_step = max(eligible, request.next_decode_eligible_step)
        self._admission.lora.take_out()

    def shape_of(self, output: Any) -> tuple[StepShape, int]:
        """(what vLLM scheduled, number of prompt chunks in it), read after ``schedule``."""
        found = self._scheduled.shape_of(output, self.view, self._prefills)
        if self._left_to and not self.computed:
            self._admission.in_vain(self._left_to, self.view.step)
        return found
