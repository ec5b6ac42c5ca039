"""Baseline: Uniform Progress, the best published policy for unknown futures.

Source: Wu et al., "Can't Be Late: Optimizing Spot Instance Savings under Deadlines", NSDI 2024. Work done is kept in
step with elapsed time * work / deadline. Once on an on-demand instance, it stays there until spot is available and
progress is ahead by what two changeovers cost.
"""

import math

from sky_spot.strategies.strategy import Strategy
from sky_spot.utils import ClusterType


class UniformProgress(Strategy):
    NAME = "uniform_progress"

    def _step(self, last_cluster_type, has_spot):
        env = self.env
        done = sum(self.task_done_time)
        rest = self.task_duration - done
        if rest <= 1e-3:
            return ClusterType.NONE
        now = env.cluster_type
        left = math.floor((self.deadline - env.elapsed_seconds) / env.gap_seconds)
        if math.ceil((rest + 2 * self.restart_overhead) / env.gap_seconds) >= left:  # no time for another changeover
            return ClusterType.SPOT if now is ClusterType.SPOT and has_spot else ClusterType.ON_DEMAND
        if now is ClusterType.ON_DEMAND:
            soon = env.elapsed_seconds + 2 * self.restart_overhead
            if not has_spot or soon * self.task_duration / self.deadline - done >= 0:
                return ClusterType.ON_DEMAND
        if has_spot:
            return ClusterType.SPOT
        behind = env.elapsed_seconds * self.task_duration / self.deadline - done > 0
        return ClusterType.ON_DEMAND if behind else ClusterType.NONE
