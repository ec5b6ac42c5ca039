"""Always where spot is cheapest now, whatever the move costs; nothing when there is no spot anywhere."""

from sky_spot.strategies.strategy import MultiRegionStrategy
from sky_spot.utils import ClusterType


class Cheapest(MultiRegionStrategy):
    NAME = "cheapest"

    def _step(self, last_cluster_type, has_spot):
        prices = self.env.get_all_regions_spot_prices()
        offers = [(price, region) for region, price in enumerate(prices) if price is not None]
        if not offers:
            return ClusterType.NONE
        self.env.switch_region(min(offers)[1])
        return ClusterType.SPOT
