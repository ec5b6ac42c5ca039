"""Repairs counters by link symmetry: what one end sends, the other receives."""

# EVOLVE-BLOCK-START
AGREEMENT = 0.05  # relative difference up to which both ends tell the same
OWN_WEIGHT = 0.5  # of the own reading where both ends agree
LARGER_WEIGHT = 0.5  # of the larger reading where they do not
CONFIDENCE_AGREED = 0.8
CONFIDENCE_REPLACED = 0.6
CONFIDENCE_DISPUTED = 0.5


def repair_counter(own, opposite):
    """(repaired, confidence) of one counter from its reading and the opposite one at the other end."""
    larger = max(own, opposite)
    smaller = min(own, opposite)
    difference = larger - smaller
    if difference <= AGREEMENT * larger:
        return OWN_WEIGHT * own + (1.0 - OWN_WEIGHT) * opposite, CONFIDENCE_AGREED
    if smaller == 0.0:
        return larger, CONFIDENCE_REPLACED
    confidence = CONFIDENCE_DISPUTED * (1.0 - difference / larger)
    return LARGER_WEIGHT * larger + (1.0 - LARGER_WEIGHT) * smaller, confidence


def repair_status(own, opposite, rate):
    """A link is up when either end says so or traffic flows."""
    if own == "up" or opposite == "up" or rate > 0.0:
        return "up"
    return "down"


def run_repair(telemetry, topology):
    """Each counter on its own, with the one that it should equal."""
    repaired = {}
    for name, fields in telemetry.items():
        peer = telemetry[fields["connected_to"]]
        rx, rx_confidence = repair_counter(fields["rx_rate"], peer["tx_rate"])
        tx, tx_confidence = repair_counter(fields["tx_rate"], peer["rx_rate"])
        status = repair_status(fields["interface_status"], peer["interface_status"], rx + tx)
        repaired[name] = {
            "rx_rate": (fields["rx_rate"], rx, rx_confidence),
            "tx_rate": (fields["tx_rate"], tx, tx_confidence),
            "interface_status": (fields["interface_status"], status, 0.9),
        }
    return repaired


# EVOLVE-BLOCK-END
