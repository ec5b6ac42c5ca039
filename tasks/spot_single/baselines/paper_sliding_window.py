"""Paper baseline, written from its prose: adapt to how often spot was there lately, instead of fixed thresholds.

Source: what "Barbarians at the Gate" (arXiv 2510.06189) says of its policy for this problem: it looks at availability
over a sliding window, waits for spot where that pays and does not chase short spells. Form and numbers are ours; the
numbers were fitted on generated traces of their own seeds.

Waiting spends slack, the time before the deadline less the work left. A part of what slack an even pace would still
have ahead is kept back: less of it when spot has been frequent, more of it as the work nears its end.
"""

import math

from sky_spot.strategies.strategy import Strategy
from sky_spot.utils import ClusterType

WINDOW = 8  # gaps
KEPT = 0.60  # share of the even slack that is kept back at the start, when spot was never there
KEPT_LESS = 0.15  # less of it when spot was always there
KEPT_MORE = 0.20  # more of it at the end of the work
OVERHEADS = 1.0  # kept back besides
LEAD = 6.0  # overheads of slack above what is kept back, before an on-demand instance is left
SHORT = 2.6  # overheads: spells below this are not chased from an on-demand instance
FIRST_SPELL = 9.0  # gaps, the guess at a spell before any has been seen, with the weight of ten spells


class SlidingWindow(Strategy):
    NAME = "paper_sliding_window"

    def reset(self, env, task):
        super().reset(env, task)
        self.recent = []
        self.gaps_with_spot = 10 * FIRST_SPELL
        self.spells = 10
        self.done = 0.0

    def look(self, has_spot):
        """Keep count of availability; the share of the window in which spot was there."""
        if has_spot:
            self.gaps_with_spot += 1
            if not (self.recent and self.recent[-1]):
                self.spells += 1
        self.recent.append(has_spot)
        del self.recent[:-WINDOW]
        return sum(self.recent) / len(self.recent)

    def _step(self, last_cluster_type, has_spot):
        env, gap, overhead = self.env, self.env.gap_seconds, self.restart_overhead
        share = self.look(has_spot)
        self.done += self.task_done_time[-1]
        rest = self.task_duration - self.done
        if rest <= 1e-3:
            return ClusterType.NONE

        now = env.cluster_type
        time_left = self.deadline - env.elapsed_seconds
        if math.ceil((rest + 2 * overhead) / gap) >= math.floor(time_left / gap):
            return ClusterType.SPOT if now is ClusterType.SPOT and has_spot else ClusterType.ON_DEMAND

        kept = KEPT - KEPT_LESS * share + KEPT_MORE * self.done / self.task_duration
        spare = time_left - rest - kept * time_left * (1 - self.task_duration / self.deadline) - OVERHEADS * overhead
        if now is ClusterType.ON_DEMAND and spare <= LEAD * overhead:
            short = self.gaps_with_spot / self.spells * gap < SHORT * overhead
            return ClusterType.SPOT if has_spot and not short else ClusterType.ON_DEMAND
        if has_spot:
            return ClusterType.SPOT
        return ClusterType.NONE if spare > 0 else ClusterType.ON_DEMAND
