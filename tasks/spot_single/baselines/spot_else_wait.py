"""Baseline: spot whenever it is there, else wait. The simulator's guarantee turns to on-demand in the end."""

from sky_spot.strategies.strategy import Strategy
from sky_spot.utils import ClusterType


class SpotElseWait(Strategy):
    NAME = "spot_else_wait"

    def _step(self, last_cluster_type, has_spot):
        if sum(self.task_done_time) >= self.task_duration:
            return ClusterType.NONE
        return ClusterType.SPOT if has_spot else ClusterType.NONE
