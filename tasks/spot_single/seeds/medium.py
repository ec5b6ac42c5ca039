"""Wait for spot for as long as the deadline allows, then finish on-demand."""

# EVOLVE-BLOCK-START
import math

from sky_spot.strategies.strategy import Strategy
from sky_spot.utils import ClusterType

LAST_CALL = 1.0  # overheads that must still fit before the deadline
COMMIT = 2.0  # overheads below which no new spot instance is started
KEPT_SLACK = 0.0  # share of the slack ahead that is not spent on waiting


class Greedy(Strategy):
    NAME = "greedy"

    def _step(self, last_cluster_type, has_spot):
        env = self.env
        rest = self.task_duration - sum(self.task_done_time)
        if rest <= 1e-9:
            return ClusterType.NONE
        time_left = self.deadline - env.elapsed_seconds
        gaps_left = max(0, math.floor(time_left / env.gap_seconds))

        # the deadline first
        if math.ceil((rest + LAST_CALL * self.restart_overhead) / env.gap_seconds) >= gaps_left:
            return ClusterType.ON_DEMAND
        if math.ceil((rest + COMMIT * self.restart_overhead) / env.gap_seconds) >= gaps_left:
            if env.cluster_type is ClusterType.SPOT and has_spot:
                return ClusterType.SPOT
            return ClusterType.ON_DEMAND

        if has_spot:
            return ClusterType.SPOT
        slack = time_left - rest
        slack_ahead = time_left * (1 - self.task_duration / self.deadline)
        if slack < KEPT_SLACK * slack_ahead:
            return ClusterType.ON_DEMAND
        return ClusterType.NONE


# EVOLVE-BLOCK-END
