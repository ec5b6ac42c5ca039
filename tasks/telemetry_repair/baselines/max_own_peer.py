"""Baseline: the larger of an interface's reading and the opposite one at the other end, all with one confidence."""

CONFIDENCE = 0.9


def run_repair(telemetry, topology):
    repaired = {}
    for name, fields in telemetry.items():
        peer = telemetry[fields["connected_to"]]
        status = fields["interface_status"]
        repaired[name] = {
            "rx_rate": (fields["rx_rate"], max(fields["rx_rate"], peer["tx_rate"]), CONFIDENCE),
            "tx_rate": (fields["tx_rate"], max(fields["tx_rate"], peer["rx_rate"]), CONFIDENCE),
            "interface_status": (status, status, 1.0),
        }
    return repaired
