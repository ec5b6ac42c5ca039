"""Never leaves the first region: spot when it is there, nothing when not, until the guarantee takes over."""

from sky_spot.strategies.strategy import MultiRegionStrategy
from sky_spot.utils import ClusterType


class StayWait(MultiRegionStrategy):
    NAME = "stay_wait"

    def _step(self, last_cluster_type, has_spot):
        return ClusterType.SPOT if has_spot else ClusterType.NONE
