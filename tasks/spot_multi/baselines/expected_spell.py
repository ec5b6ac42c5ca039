"""Spot where an hour of work is expected to be cheapest, restarts included; on demand only when slack runs out.

For each region the mean length of a spell of spot is estimated from the ticks seen so far. A launch costs a restart
(and a transfer from another region), spread over the expected spell, so a dear region that holds can beat a cheap one
that flaps. Slack, the time that may still be lost, goes into restarts first; only what an even pace leaves over is
waited away. The constants were chosen on train and validation.
"""

from sky_spot.strategies.strategy import MultiRegionStrategy
from sky_spot.utils import ClusterType

PRIOR_SPELL_H = 1.0  # the first guess of a spell's length, worth one observed spell
MIN_SAVING = 0.10  # by how much cheaper an hour elsewhere must be before a working instance is left
LEAVE_RESTARTS = 1.0  # slack, in restarts, from which on demand may be left
WAIT_SHARE = 1.3  # share of the slack that an even pace leaves at this time, above which no spot means waiting


class ExpectedSpell(MultiRegionStrategy):
    NAME = "expected_spell"

    def reset(self, env, task):
        super().reset(env, task)
        regions = env.get_num_regions()
        self.up_h = [PRIOR_SPELL_H] * regions
        self.spells = [1.0] * regions
        self.was_up = [False] * regions
        self.home = None  # region of the newest checkpoint
        self.names = [name.partition("_")[0][:-1] for name in env.get_region_names()]

    def _note(self, prices):
        gap_h = self.env.gap_seconds / 3600
        for region, price in enumerate(prices):
            if price is not None:
                self.up_h[region] += gap_h
            elif self.was_up[region]:
                self.spells[region] += 1.0
            self.was_up[region] = price is not None

    def _spell_h(self, region):
        return self.up_h[region] / self.spells[region]

    def _usd_per_hour_of_work(self, region, price, running):
        if running:
            return price
        spell_h = self._spell_h(region)
        far = self.home is not None and self.names[region] != self.names[self.home]
        lost_h = (self.restart_overhead + (self.env.transfer_seconds if far else 0.0)) / 3600
        worked_h = max(spell_h - lost_h, 1e-3)
        return (price * spell_h + (self.env.egress_usd if far else 0.0)) / worked_h

    def _step(self, last_cluster_type, has_spot):
        env = self.env
        prices = env.get_all_regions_spot_prices()
        self._note(prices)
        if self.task_done_time[-1] > 0:
            self.home = env.get_current_region()
        left = self.task_duration - sum(self.task_done_time)
        slack = self.deadline - env.elapsed_seconds - left - self.restart_overhead
        running, here = env.cluster_type, env.get_current_region()
        on_demand = env.get_on_demand_price()

        best, best_usd = None, on_demand
        for region, price in enumerate(prices):
            if price is None:
                continue
            on_it = running is ClusterType.SPOT and region == here
            usd = self._usd_per_hour_of_work(region, price, on_it)
            if running is ClusterType.SPOT and not on_it:
                usd *= 1.0 + MIN_SAVING
            if usd < best_usd:
                best, best_usd = region, usd

        tight = slack < LEAVE_RESTARTS * self.restart_overhead
        if tight and (running is ClusterType.ON_DEMAND or (running is ClusterType.SPOT and best != here)):
            return running
        if best is not None:
            env.switch_region(best)
            return ClusterType.SPOT
        at_start = self.deadline - self.task_duration - self.restart_overhead
        if slack > WAIT_SHARE * at_start * (1.0 - env.elapsed_seconds / self.deadline):
            return ClusterType.NONE
        return ClusterType.ON_DEMAND
