"""Repairs counters by the average of both ends of the link, unless the own end reads zero."""

# EVOLVE-BLOCK-START
OWN_WEIGHT = 0.5
CONFIDENCE = 0.6


def repair_counter(own, opposite):
    """(repaired, confidence) of one counter from its reading and the opposite one at the other end."""
    if own == 0.0:
        return opposite, CONFIDENCE
    return OWN_WEIGHT * own + (1.0 - OWN_WEIGHT) * opposite, CONFIDENCE


def run_repair(telemetry, topology):
    """Each counter on its own; statuses are believed."""
    repaired = {}
    for name, fields in telemetry.items():
        peer = telemetry[fields["connected_to"]]
        rx, rx_confidence = repair_counter(fields["rx_rate"], peer["tx_rate"])
        tx, tx_confidence = repair_counter(fields["tx_rate"], peer["rx_rate"])
        status = fields["interface_status"]
        repaired[name] = {
            "rx_rate": (fields["rx_rate"], rx, rx_confidence),
            "tx_rate": (fields["tx_rate"], tx, tx_confidence),
            "interface_status": (status, status, 1.0),
        }
    return repaired


# EVOLVE-BLOCK-END
