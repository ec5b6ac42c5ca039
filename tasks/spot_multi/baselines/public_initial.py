"""The method of the public initial program: on demand when behind an even pace, else look at the next region.

Source of the method: openevolve/examples/ADRS/cant-be-late-multi of the ADRS collection.
"""

from sky_spot.strategies.strategy import MultiRegionStrategy
from sky_spot.utils import ClusterType


class PublicInitial(MultiRegionStrategy):
    NAME = "public_initial"

    def _step(self, last_cluster_type, has_spot):
        elapsed = self.env.elapsed_seconds
        done = sum(self.task_done_time)
        if done >= self.task_duration:
            return ClusterType.NONE
        behind = elapsed >= self.deadline or (elapsed > 0 and done < elapsed * (self.task_duration / self.deadline))
        if has_spot:
            return ClusterType.SPOT
        if behind:
            return ClusterType.ON_DEMAND
        self.env.switch_region((self.env.get_current_region() + 1) % self.env.get_num_regions())
        return ClusterType.NONE
