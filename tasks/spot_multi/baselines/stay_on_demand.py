"""Never leaves the first region: spot when it is there, on demand when not."""

from sky_spot.strategies.strategy import MultiRegionStrategy
from sky_spot.utils import ClusterType


class StayOnDemand(MultiRegionStrategy):
    NAME = "stay_on_demand"

    def _step(self, last_cluster_type, has_spot):
        return ClusterType.SPOT if has_spot else ClusterType.ON_DEMAND
