"""Repairs counters that read zero from the other end of the link."""

# EVOLVE-BLOCK-START
CONFIDENCE_KEPT = 0.8
CONFIDENCE_REPLACED = 0.8


def repair_counter(own, opposite):
    """(repaired, confidence) of one counter from its reading and the opposite one at the other end."""
    if own == 0.0:
        return opposite, CONFIDENCE_REPLACED
    return own, CONFIDENCE_KEPT


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
