"""Spot until it has been lost a few times, then on-demand for good."""

# EVOLVE-BLOCK-START
from sky_spot.strategies.strategy import Strategy
from sky_spot.utils import ClusterType

LOSSES = 2  # preemptions after which spot is given up
PATIENCE_H = 2.0  # hours to wait for spot when there is none


class Weary(Strategy):
    NAME = "weary"

    def reset(self, env, task):
        super().reset(env, task)
        self.losses = 0
        self.waited = 0.0

    def _step(self, last_cluster_type, has_spot):
        rest = self.task_duration - sum(self.task_done_time)
        if rest <= 1e-9:
            return ClusterType.NONE
        if last_cluster_type is ClusterType.SPOT and not has_spot:
            self.losses = self.losses + 1
        if self.losses >= LOSSES:
            return ClusterType.ON_DEMAND
        if has_spot:
            return ClusterType.SPOT
        if self.waited >= PATIENCE_H * 3600:
            return ClusterType.ON_DEMAND
        self.waited = self.waited + self.env.gap_seconds
        return ClusterType.NONE


# EVOLVE-BLOCK-END
