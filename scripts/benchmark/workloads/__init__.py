"""The workloads, one file each."""

from __future__ import annotations

from collections.abc import Mapping

from scripts.benchmark.bench import Workload
from scripts.benchmark.workloads.answers import answers
from scripts.benchmark.workloads.children import children
from scripts.benchmark.workloads.crowd import many_diamonds, one_fan
from scripts.benchmark.workloads.holding import holding
from scripts.benchmark.workloads.http_load import http_load
from scripts.benchmark.workloads.http_single import http_single
from scripts.benchmark.workloads.lone_chain import lone_chain
from scripts.benchmark.workloads.replicated import replicated
from scripts.benchmark.workloads.rest import rest
from scripts.benchmark.workloads.runs import runs
from scripts.benchmark.workloads.schedules import schedules
from scripts.benchmark.workloads.single import single_node
from scripts.benchmark.workloads.sleepers import sleepers
from scripts.benchmark.workloads.steady import steady_state
from scripts.benchmark.workloads.waiting import waiting
from scripts.benchmark.workloads.wide import wide_and_long

WORKLOADS: Mapping[str, Workload] = {
    "W1": lone_chain,
    "W2": one_fan,
    "W3": many_diamonds,
    "W4": rest,
    "W5": single_node,
    "W6": sleepers,
    "W7": http_load,
    "W8": http_single,
    "W9": wide_and_long,
    "W10": steady_state,
    "W11": waiting,
    "W12": answers,
    "W13": runs,
    "W14": children,
    "W15": schedules,
    "W16": holding,
    "W17": replicated,
}
