"""Keeps a region while it has spot, else goes to the first one that has, else runs on demand where it is."""

from sky_spot.strategies.strategy import MultiRegionStrategy
from sky_spot.utils import ClusterType


class FirstRegionWithSpot(MultiRegionStrategy):
    NAME = "first_region_with_spot"

    def _step(self, last_cluster_type, has_spot):
        if has_spot:
            return ClusterType.SPOT
        for region, available in enumerate(self.env.get_all_regions_spot_available()):
            if available:
                self.env.switch_region(region)
                return ClusterType.SPOT
        return ClusterType.ON_DEMAND
