"""Uniform Progress with hysteresis, in the first region only.

Source: Wu et al., "Can't Be Late: Optimizing Spot Instance Savings under Deadlines", NSDI 2024. Progress is held at the
pace duration / deadline. Behind it and without spot, on demand runs; it is left again when the job is ahead of the pace
by two restarts.
"""

from sky_spot.strategies.strategy import MultiRegionStrategy
from sky_spot.utils import ClusterType


class UniformProgress(MultiRegionStrategy):
    NAME = "uniform_progress"

    def _step(self, last_cluster_type, has_spot):
        elapsed, done = self.env.elapsed_seconds, sum(self.task_done_time)
        ahead_of = elapsed + 2 * self.restart_overhead
        if self.env.cluster_type is ClusterType.ON_DEMAND and done * self.deadline < self.task_duration * ahead_of:
            return ClusterType.ON_DEMAND
        if has_spot:
            return ClusterType.SPOT
        if done * self.deadline < self.task_duration * elapsed:
            return ClusterType.ON_DEMAND
        return ClusterType.NONE
