"""Baseline: Uniform Progress as the public repository ships it for reference.

Its rule for staying on an on-demand instance takes no effect while spot is there, unlike that of the paper.
"""

import math

from sky_spot.strategies.strategy import Strategy
from sky_spot.utils import ClusterType


class UniformProgressShipped(Strategy):
    NAME = "uniform_progress_shipped"

    def _step(self, last_cluster_type, has_spot):
        env = self.env
        done = sum(self.task_done_time)
        rest = self.task_duration - done
        if rest <= 1e-3:
            return ClusterType.NONE
        left = math.floor((self.deadline - env.elapsed_seconds) / env.gap_seconds)
        if math.ceil((rest + self.restart_overhead) / env.gap_seconds) >= left:
            return ClusterType.ON_DEMAND
        if has_spot:
            return ClusterType.SPOT
        if env.elapsed_seconds * self.task_duration / self.deadline - done > 0:
            return ClusterType.ON_DEMAND
        soon = env.elapsed_seconds + 2 * self.restart_overhead
        if env.cluster_type is ClusterType.ON_DEMAND and soon * self.task_duration / self.deadline - done >= 0:
            return ClusterType.ON_DEMAND
        return ClusterType.NONE
