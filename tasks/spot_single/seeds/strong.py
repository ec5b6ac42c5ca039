"""Keep the work done in step with the time gone: on-demand when behind and without spot, else wait."""

# EVOLVE-BLOCK-START
import math

from sky_spot.strategies.strategy import Strategy
from sky_spot.utils import ClusterType

PACE = 1.0  # work asked for, as a multiple of elapsed time * work / deadline
LAST_CALL = 1.0  # overheads that must still fit before the deadline
LEAD = 2.0  # overheads by which progress must lead before an on-demand instance is left for nothing


class EvenPace(Strategy):
    NAME = "even_pace"

    def _step(self, last_cluster_type, has_spot):
        env = self.env
        done = sum(self.task_done_time)
        rest = self.task_duration - done
        if rest <= 1e-3:
            return ClusterType.NONE

        gaps_left = math.floor((self.deadline - env.elapsed_seconds) / env.gap_seconds)
        if math.ceil((rest + LAST_CALL * self.restart_overhead) / env.gap_seconds) >= gaps_left:
            return ClusterType.ON_DEMAND

        if has_spot:
            return ClusterType.SPOT
        elapsed = env.elapsed_seconds
        if env.cluster_type is ClusterType.ON_DEMAND:
            elapsed = elapsed + LEAD * self.restart_overhead
        due = PACE * elapsed * self.task_duration / self.deadline
        return ClusterType.ON_DEMAND if done < due else ClusterType.NONE


# EVOLVE-BLOCK-END
