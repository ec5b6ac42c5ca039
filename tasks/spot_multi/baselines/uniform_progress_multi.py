"""Uniform Progress over several regions: its pace and hysteresis, and the cheapest spot there is when spot is lost.

A working instance is never left for a cheaper one. Source of pace and hysteresis: see uniform_progress.
"""

from sky_spot.strategies.strategy import MultiRegionStrategy
from sky_spot.utils import ClusterType


class UniformProgressMulti(MultiRegionStrategy):
    NAME = "uniform_progress_multi"

    def _step(self, last_cluster_type, has_spot):
        elapsed, done = self.env.elapsed_seconds, sum(self.task_done_time)
        running = self.env.cluster_type
        ahead_of = elapsed + 2 * self.restart_overhead
        if running is ClusterType.SPOT:
            return ClusterType.SPOT
        if running is ClusterType.ON_DEMAND and done * self.deadline < self.task_duration * ahead_of:
            return ClusterType.ON_DEMAND
        prices = self.env.get_all_regions_spot_prices()
        offers = [(price, region) for region, price in enumerate(prices) if price is not None]
        if offers:
            self.env.switch_region(min(offers)[1])
            return ClusterType.SPOT
        if done * self.deadline < self.task_duration * elapsed:
            return ClusterType.ON_DEMAND
        return ClusterType.NONE
