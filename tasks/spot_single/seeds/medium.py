"""Baseline: wait for spot for as long as the deadline allows, then on-demand. The public starting point's method."""

import math

from sky_spot.strategies.strategy import Strategy
from sky_spot.utils import ClusterType


class Greedy(Strategy):
    NAME = "greedy"

    def _step(self, last_cluster_type, has_spot):
        rest = self.task_duration - sum(self.task_done_time)
        if rest <= 1e-9:
            return ClusterType.NONE
        gap = self.env.gap_seconds
        left = max(0, math.floor((self.deadline - self.env.elapsed_seconds) / gap))
        if math.ceil((rest + self.restart_overhead) / gap) >= left:
            return ClusterType.ON_DEMAND
        if math.ceil((rest + 2 * self.restart_overhead) / gap) >= left:
            keep = self.env.cluster_type is ClusterType.SPOT and has_spot
            return ClusterType.SPOT if keep else ClusterType.ON_DEMAND
        return ClusterType.SPOT if has_spot else ClusterType.NONE
