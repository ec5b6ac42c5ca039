"""Repairs counters by link symmetry; where the ends of a link disagree, the router that disagrees more is doubted."""

# EVOLVE-BLOCK-START
AGREEMENT = 0.08  # relative difference up to which both ends tell the same
OWN_WEIGHT = 0.5  # of the own reading where both ends agree
MARGIN = 0.3  # difference in doubt from which on one end is believed
CONFIDENCE_AGREED = 0.9
CONFIDENCE_REPLACED = 0.9
CONFIDENCE_NOTHING = 0.5  # both ends read zero
CONFIDENCE_DECIDED = 0.7
CONFIDENCE_DISPUTED = 0.3


def agree(own, opposite):
    return abs(own - opposite) <= AGREEMENT * max(own, opposite)


def router_doubts(telemetry, topology):
    """Per router, the share of its counters that disagree with the other ends."""
    doubts = {}
    for router, interfaces in topology.items():
        disagreeing = 0
        for name in interfaces:
            fields = telemetry[name]
            peer = telemetry[fields["connected_to"]]
            if not agree(fields["rx_rate"], peer["tx_rate"]):
                disagreeing += 1
            if not agree(fields["tx_rate"], peer["rx_rate"]):
                disagreeing += 1
        doubts[router] = disagreeing / max(1, 2 * len(interfaces))
    return doubts


def repair_counter(own, opposite, own_doubt, opposite_doubt):
    """(repaired, confidence) of one counter from both readings and how far their routers are doubted."""
    if own == 0.0 and opposite == 0.0:
        return 0.0, CONFIDENCE_NOTHING
    if agree(own, opposite):
        return OWN_WEIGHT * own + (1.0 - OWN_WEIGHT) * opposite, CONFIDENCE_AGREED
    if own == 0.0 or opposite == 0.0:
        return max(own, opposite), CONFIDENCE_REPLACED
    if own_doubt > opposite_doubt + MARGIN:
        return opposite, CONFIDENCE_DECIDED
    if opposite_doubt > own_doubt + MARGIN:
        return own, CONFIDENCE_DECIDED
    return (own + opposite) / 2.0, CONFIDENCE_DISPUTED


def run_repair(telemetry, topology):
    """Doubt routers first, then repair each counter."""
    doubts = router_doubts(telemetry, topology)
    repaired = {}
    for name, fields in telemetry.items():
        peer = telemetry[fields["connected_to"]]
        own_doubt = doubts[fields["local_router"]]
        peer_doubt = doubts[fields["remote_router"]]
        rx, rx_confidence = repair_counter(fields["rx_rate"], peer["tx_rate"], own_doubt, peer_doubt)
        tx, tx_confidence = repair_counter(fields["tx_rate"], peer["rx_rate"], own_doubt, peer_doubt)
        up = fields["interface_status"] == "up" or peer["interface_status"] == "up" or rx + tx > 0.0
        repaired[name] = {
            "rx_rate": (fields["rx_rate"], rx, rx_confidence),
            "tx_rate": (fields["tx_rate"], tx, tx_confidence),
            "interface_status": (fields["interface_status"], "up" if up else "down", 0.9),
        }
    return repaired


# EVOLVE-BLOCK-END
