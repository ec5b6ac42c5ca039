"""Baseline: always on-demand. It saves nothing."""

from sky_spot.strategies.strategy import Strategy
from sky_spot.utils import ClusterType


class OnDemand(Strategy):
    NAME = "on_demand"

    def _step(self, last_cluster_type, has_spot):
        return ClusterType.ON_DEMAND
