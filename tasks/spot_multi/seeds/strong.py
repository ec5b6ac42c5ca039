"""Holds an even pace over all regions: the cheapest spot there is when spot is lost, on demand only when behind."""

from sky_spot.strategies.strategy import MultiRegionStrategy
from sky_spot.utils import ClusterType

# EVOLVE-BLOCK-START
PACE = 1.0  # progress held to, as a share of an even pace from start to deadline
LEAD_RESTARTS = 2.0  # lead over the pace, in restarts, from which on demand is left for spot
PRICE_WEIGHT = 1.0  # of a region's spot price now, in $/h
MOVE_PENALTY = 0.2  # $/h by which another region must be cheaper than the one in focus


class StrongStrategy(MultiRegionStrategy):
    NAME = "strong"

    def _step(self, last_cluster_type, has_spot):
        env = self.env
        done = sum(self.task_done_time)
        running = env.cluster_type
        pace = PACE * self.task_duration / self.deadline
        lead = done - pace * env.elapsed_seconds
        if running is ClusterType.SPOT:
            return ClusterType.SPOT
        if running is ClusterType.ON_DEMAND and lead < LEAD_RESTARTS * self.restart_overhead:
            return ClusterType.ON_DEMAND
        region = self._best_region()
        if region is not None:
            env.switch_region(region)
            return ClusterType.SPOT
        if lead < 0:
            return ClusterType.ON_DEMAND
        return ClusterType.NONE

    def _best_region(self):
        env = self.env
        here = env.get_current_region()
        best_region, best_score = None, float("-inf")
        for region, price in enumerate(env.get_all_regions_spot_prices()):
            if price is None:
                continue
            penalty = 0.0 if region == here else MOVE_PENALTY
            score = -PRICE_WEIGHT * price - penalty
            if score > best_score:
                best_region, best_score = region, score
        return best_region


# EVOLVE-BLOCK-END
