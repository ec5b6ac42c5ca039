"""Stand-in for the public module of this name: programs `from sky_spot.utils import ClusterType`."""

import enum


class ClusterType(enum.Enum):
    """What runs during a gap."""

    NONE = 0
    SPOT = 1
    ON_DEMAND = 2
