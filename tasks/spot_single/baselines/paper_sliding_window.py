"""Paper baseline, written from its prose: adapt to how often spot was there lately, instead of fixed thresholds.

Source: the paragraph on this task in "Barbarians at the Gate" (arXiv 2510.06189): a sliding window over recent
availability tells stable from unstable times; when spot is frequent it waits for it while there is slack, when it is
rare or flapping it goes to on-demand early and does not chase short spells. Our numbers, chosen on validation.
"""

import math
from collections import deque

from sky_spot.strategies.strategy import Strategy
from sky_spot.utils import ClusterType

WINDOW_H = 6.0
PLENTY = 0.55
STEADY_GAPS = 3


class SlidingWindow(Strategy):
    NAME = "paper_sliding_window"

    def reset(self, env, task):
        super().reset(env, task)
        self.recent = deque(maxlen=max(1, int(WINDOW_H * 3600 / env.gap_seconds)))
        self.spell = 0  # gaps that spot has now been there
        self.done = 0.0
        self.counted = 0

    def _step(self, last_cluster_type, has_spot):
        env = self.env
        for work in self.task_done_time[self.counted :]:
            self.done += work
        self.counted = len(self.task_done_time)
        self.recent.append(has_spot)
        self.spell = self.spell + 1 if has_spot else 0
        rest = self.task_duration - self.done
        if rest <= 1e-3:
            return ClusterType.NONE

        gap, overhead, now = env.gap_seconds, self.restart_overhead, env.cluster_type
        left = math.floor((self.deadline - env.elapsed_seconds) / gap)
        if math.ceil((rest + 2 * overhead) / gap) >= left:
            return ClusterType.SPOT if now is ClusterType.SPOT and has_spot else ClusterType.ON_DEMAND

        share = sum(self.recent) / len(self.recent)
        slack = (self.deadline - env.elapsed_seconds - rest) / max(self.deadline - self.task_duration, 1.0)
        if has_spot:
            if now is ClusterType.ON_DEMAND and share < PLENTY and self.spell * gap < STEADY_GAPS * overhead:
                return ClusterType.ON_DEMAND
            return ClusterType.SPOT
        # the rarer spot has been, the less of the slack is spent on waiting for it
        wanted = (1 - share) * rest / self.task_duration
        return ClusterType.NONE if slack > wanted else ClusterType.ON_DEMAND
