"""Baseline: spot whenever it is there, else on-demand. It never waits."""

from sky_spot.strategies.strategy import Strategy
from sky_spot.utils import ClusterType


class SpotElseOnDemand(Strategy):
    NAME = "spot_else_on_demand"

    def _step(self, last_cluster_type, has_spot):
        if sum(self.task_done_time) >= self.task_duration:
            return ClusterType.NONE
        return ClusterType.SPOT if has_spot else ClusterType.ON_DEMAND
