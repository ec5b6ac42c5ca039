"""Baseline: Hodor's idea (HotNets 2024) that every signal is told more than once, as a vote.

Four voters per counter: the own reading, the opposite one, and what would balance the router at either end. The value
with the most voters within a tolerance wins; every voter who agrees quarters the doubt. Written from the idea; routers
balance only roughly here, since traffic that starts or ends there is not counted.
"""

TOLERANCE = 0.05


def balances(telemetry, topology):
    """Per router, received minus sent."""
    return {
        router: sum(telemetry[name]["rx_rate"] - telemetry[name]["tx_rate"] for name in interfaces)
        for router, interfaces in topology.items()
    }


def vote(voters):
    """(value, confidence); ties go to the earlier voter, and zero wins only if both readings are zero."""
    best, most = voters[0], 0
    for value in voters:
        support = sum(abs(value - other) <= TOLERANCE * max(value, other) for other in voters)
        if support > most and (value > 0.0 or max(voters[:2]) <= 0.0):
            best, most = value, support
    return best, 1.0 - 0.5 ** (2 * most - 1)


def run_repair(telemetry, topology):
    balance = balances(telemetry, topology)
    repaired = {}
    for name, fields in telemetry.items():
        peer = telemetry[fields["connected_to"]]
        here, there = balance[fields["local_router"]], balance[fields["remote_router"]]
        rx, tx = fields["rx_rate"], fields["tx_rate"]
        new_rx, rx_confidence = vote([rx, peer["tx_rate"], max(0.0, rx - here), max(0.0, peer["tx_rate"] + there)])
        new_tx, tx_confidence = vote([tx, peer["rx_rate"], max(0.0, tx + here), max(0.0, peer["rx_rate"] - there)])
        repaired[name] = {
            "rx_rate": (rx, new_rx, rx_confidence),
            "tx_rate": (tx, new_tx, tx_confidence),
            "interface_status": (fields["interface_status"], "up" if new_rx + new_tx > 0.0 else "down", 0.9),
        }
    return repaired
