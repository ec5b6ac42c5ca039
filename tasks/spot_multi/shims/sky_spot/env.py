"""Stand-in for the public module of the same name: what a strategy may ask about the present.

Nothing here is the truth: the run is kept elsewhere, and what a program changes here changes only what it sees.
"""

from collections.abc import Iterable, Sequence

from .utils import ClusterType


class MultiRegionEnv:
    """The zones now. They are numbered from 0; spot prices are $/h and None where spot is not available."""

    def __init__(
        self,
        zones: Sequence[str],
        on_demand_usd_h: Iterable[float],
        gap_seconds: float,
        egress_usd: float,
        transfer_seconds: float,
    ) -> None:
        self.region_names = list(zones)
        self.gap_seconds = gap_seconds
        self.egress_usd = egress_usd
        self.transfer_seconds = transfer_seconds
        self.tick = 0
        self.elapsed_seconds = 0.0
        self.cluster_type = ClusterType.NONE
        self._on_demand = [float(price) for price in on_demand_usd_h]
        self._zone = 0
        self._prices = []

    def switch_region(self, region):
        """Put another zone into focus. What is launched from now on is launched there. Raises ValueError."""
        number = int(region)
        if not 0 <= number < len(self.region_names):
            raise ValueError(f"there is no region {region}: they are 0..{len(self.region_names) - 1}")
        self._zone = number

    def get_current_region(self):
        """Number of the zone in focus."""
        return self._zone

    def get_num_regions(self):
        return len(self.region_names)

    def get_region_name(self, region=None):
        return self.region_names[self._zone if region is None else region]

    def get_region_names(self):
        return list(self.region_names)

    def get_all_regions_spot_prices(self):
        """Spot price of each zone now."""
        return [price if price == price else None for price in self._prices]

    def get_all_regions_spot_available(self):
        """For each zone whether spot can run there now."""
        return [price == price for price in self._prices]

    def get_all_regions_on_demand_prices(self):
        return list(self._on_demand)

    def get_spot_price(self, region=None):
        """Spot price of one zone, by default the one in focus."""
        price = self._prices[self._zone if region is None else region]
        return price if price == price else None

    def spot_available(self, region=None):
        """Whether spot can run in one zone, by default the one in focus."""
        price = self._prices[self._zone if region is None else region]
        return price == price

    def get_on_demand_price(self, region=None):
        return self._on_demand[self._zone if region is None else region]

    def get_price(self):
        """Price by kind of instance in the zone in focus."""
        return {
            ClusterType.NONE: 0.0,
            ClusterType.SPOT: self.get_spot_price(),
            ClusterType.ON_DEMAND: self._on_demand[self._zone],
        }

    @property
    def current_region(self):
        return self._zone

    @property
    def num_regions(self):
        return len(self.region_names)

    switch_to_region = set_region = set_current_region = switch_region
    get_region = get_current_region_index = get_current_region
    get_number_of_regions = get_region_count = get_num_regions
    get_regions = get_all_regions = get_all_region_names = get_region_names
    get_all_regions_spot_price = get_all_spot_prices = get_spot_prices = get_all_regions_spot_prices
    get_all_regions_prices = get_all_regions_spot_prices
    get_all_regions_spot_availability = get_all_regions_availability = get_all_regions_spot_available
    get_all_regions_spot = get_all_regions_has_spot = get_all_spot_available = get_all_regions_spot_available
    get_spot_availability = get_all_regions_spot_available
    get_all_regions_ondemand_prices = get_all_regions_on_demand_price = get_all_regions_on_demand_prices
    get_on_demand_prices = get_all_on_demand_prices = get_all_regions_od_prices = get_all_regions_on_demand_prices
    is_spot_available = has_spot = get_spot_available = spot_available
    get_current_spot_price = get_region_spot_price = get_spot_price
    get_ondemand_price = get_od_price = get_region_on_demand_price = get_on_demand_price
    get_price_map = get_constant_cost_map = get_price


MultiTraceEnv = Env = MultiRegionEnv
