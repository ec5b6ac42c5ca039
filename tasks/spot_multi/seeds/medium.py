"""Holds an even pace: spot while it lasts, on demand when behind, and else a look at another region, tick by tick."""

from sky_spot.strategies.strategy import MultiRegionStrategy
from sky_spot.utils import ClusterType

# EVOLVE-BLOCK-START
PACE = 1.0  # progress held to, as a share of an even pace from start to deadline
ORDER_WEIGHT = 1.0  # of a region's place in the order of regions, counted from here
PRICE_WEIGHT = 0.1  # of a region's price now, in $/h


class MediumStrategy(MultiRegionStrategy):
    NAME = "medium"

    def _step(self, last_cluster_type, has_spot):
        env = self.env
        done = sum(self.task_done_time)
        planned = PACE * self.task_duration * env.elapsed_seconds / self.deadline
        behind = planned - done
        if has_spot:
            return ClusterType.SPOT
        if behind > 0:
            return ClusterType.ON_DEMAND
        env.switch_region(self._next_region())
        return ClusterType.NONE

    def _next_region(self):
        env = self.env
        here, regions = env.get_current_region(), env.get_num_regions()
        spot_prices = env.get_all_regions_spot_prices()
        on_demand_prices = env.get_all_regions_on_demand_prices()
        best_region, best_score = here, float("-inf")
        for region in range(regions):
            if region == here:
                continue
            price = on_demand_prices[region] if spot_prices[region] is None else spot_prices[region]
            steps = (region - here) % regions
            score = -ORDER_WEIGHT * steps - PRICE_WEIGHT * price
            if score > best_score:
                best_region, best_score = region, score
        return best_region


# EVOLVE-BLOCK-END
