"""Spot in one region while it lasts, on demand when it is gone; moves on only when much has been lost to on demand."""

from sky_spot.strategies.strategy import MultiRegionStrategy
from sky_spot.utils import ClusterType

# EVOLVE-BLOCK-START
PATIENCE_TICKS = 60  # ticks on demand in a row after which the next region is tried


class WeakStrategy(MultiRegionStrategy):
    NAME = "weak"

    def reset(self, env, task):
        super().reset(env, task)
        self.ticks_without_spot = 0

    def _step(self, last_cluster_type, has_spot):
        if has_spot:
            self.ticks_without_spot = 0
            return ClusterType.SPOT
        self.ticks_without_spot += 1
        if self.ticks_without_spot > PATIENCE_TICKS:
            self.ticks_without_spot = 0
            region = self.env.get_current_region() + 1
            self.env.switch_region(region % self.env.get_num_regions())
        return ClusterType.ON_DEMAND


# EVOLVE-BLOCK-END
