"""Workloads: what is asked of a server and when. One seeded source for the load client and the simulator."""

from sarathi_plugin.workload.arrivals import (
    ArrivalProcess,
    Constant,
    Diurnal,
    Gamma,
    Poisson,
    Ramp,
    Step,
    arrival_times,
    constant_arrivals,
    poisson_arrivals,
)
from sarathi_plugin.workload.kinds import KINDS, Kind, make_trace
from sarathi_plugin.workload.lengths import (
    SHAREGPT,
    Figures,
    LengthDistribution,
    LengthModel,
    LengthPair,
    QuantileLengths,
)
from sarathi_plugin.workload.model import Message, Prompt, ScheduledRequest, Workload
from sarathi_plugin.workload.readers import read_trace, write_trace
from sarathi_plugin.workload.spec import WorkloadSpec, load_workload
from sarathi_plugin.workload.synthetic import synthetic_workload
from sarathi_plugin.workload.trace import Segment, Trace, TraceRequest, with_arrivals

__all__ = [
    "KINDS",
    "SHAREGPT",
    "ArrivalProcess",
    "Constant",
    "Diurnal",
    "Figures",
    "Gamma",
    "Kind",
    "LengthDistribution",
    "LengthModel",
    "LengthPair",
    "Message",
    "Poisson",
    "Prompt",
    "QuantileLengths",
    "Ramp",
    "ScheduledRequest",
    "Segment",
    "Step",
    "Trace",
    "TraceRequest",
    "Workload",
    "WorkloadSpec",
    "arrival_times",
    "constant_arrivals",
    "load_workload",
    "make_trace",
    "poisson_arrivals",
    "read_trace",
    "synthetic_workload",
    "with_arrivals",
    "write_trace",
]
