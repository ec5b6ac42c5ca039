"""The policy of the multi-region case study in "Barbarians at the Gate" (arXiv 2510.06189), written from its prose.

How urgent the job is decides: while it is not, regions are explored for spot and no money goes to on-demand instances;
once it is, reliable capacity comes first. Thresholds are ours.
"""

from sky_spot.strategies.strategy import MultiRegionStrategy
from sky_spot.utils import ClusterType

URGENT_SLACK = 0.02  # slack left, as a share of the deadline, below which the job is urgent
BEHIND = 0.75  # progress over an even pace below which it is urgent as well


class PaperUrgency(MultiRegionStrategy):
    NAME = "paper_urgency"

    def _step(self, last_cluster_type, has_spot):
        env = self.env
        done = sum(self.task_done_time)
        left = self.task_duration - done
        slack = self.deadline - env.elapsed_seconds - left - self.restart_overhead
        even = self.task_duration * env.elapsed_seconds / self.deadline
        urgent = slack < URGENT_SLACK * self.deadline or done < BEHIND * even
        if has_spot and (not urgent or env.cluster_type is ClusterType.SPOT):
            return ClusterType.SPOT
        if urgent:
            return ClusterType.ON_DEMAND
        offers = [
            (price, region) for region, price in enumerate(env.get_all_regions_spot_prices()) if price is not None
        ]
        if offers:
            env.switch_region(min(offers)[1])
            return ClusterType.SPOT
        return ClusterType.NONE
