"""On demand in the first region from start to end: what everything else has to beat."""

from sky_spot.strategies.strategy import MultiRegionStrategy
from sky_spot.utils import ClusterType


class AlwaysOnDemand(MultiRegionStrategy):
    NAME = "always_on_demand"

    def _step(self, last_cluster_type, has_spot):
        return ClusterType.ON_DEMAND
