"""Workloads: what is asked of a server and when. One seeded source for the load client and the simulator."""

from sarathi_plugin.workload.arrivals import constant_arrivals, poisson_arrivals
from sarathi_plugin.workload.lengths import SHAREGPT, LengthDistribution, LengthPair
from sarathi_plugin.workload.model import Message, Prompt, ScheduledRequest, Workload
from sarathi_plugin.workload.synthetic import synthetic_workload

__all__ = [
    "SHAREGPT",
    "LengthDistribution",
    "LengthPair",
    "Message",
    "Prompt",
    "ScheduledRequest",
    "Workload",
    "constant_arrivals",
    "poisson_arrivals",
    "synthetic_workload",
]
