"""Baseline: flows of all links at once, by least squares over readings of both ends and balance at every router.

Balance is a weak equation only, since traffic also starts and ends at routers without being counted.
"""

import numpy as np

BALANCE_WEIGHT = 0.05
AGREEMENT = 0.08


def run_repair(telemetry, topology):
    names = list(telemetry)
    index = {name: i for i, name in enumerate(names)}
    peer = np.array([index[telemetry[name]["connected_to"]] for name in names])
    rx = np.array([telemetry[name]["rx_rate"] for name in names])
    tx = np.array([telemetry[name]["tx_rate"] for name in names])
    seen = rx[peer]  # what the other end received of `tx`
    larger = np.maximum(np.maximum(tx, seen), 1e-3)
    agree = np.abs(tx - seen) <= AGREEMENT * larger
    # Unknown is the flow out of each interface. A zero against a reading tells nothing.
    trust_tx = np.where(agree, 1.0, (tx > 0.0) * 0.5)
    trust_seen = np.where(agree, 1.0, (seen > 0.0) * 0.5)
    rows = [np.diag(trust_tx / larger), np.diag(trust_seen / larger)]
    targets = [trust_tx * tx / larger, trust_seen * seen / larger]
    for interfaces in topology.values():
        balance = np.zeros(len(names))
        own = [index[name] for name in interfaces]
        balance[own] += 1.0
        balance[peer[own]] -= 1.0
        size = max(1.0, float(larger[own].sum()))
        rows.append(BALANCE_WEIGHT * balance[None, :] / size)
        targets.append(np.zeros(1))
    flow = np.linalg.lstsq(np.concatenate(rows), np.concatenate(targets), rcond=None)[0].clip(min=0.0)
    certain = np.where(agree, 0.98, np.where((tx > 0.0) & (seen > 0.0), 0.05, np.where(tx + seen > 0.0, 0.9, 0.2)))
    repaired = {}
    for i, name in enumerate(names):
        fields, j = telemetry[name], peer[i]
        repaired[name] = {
            "rx_rate": (fields["rx_rate"], float(flow[j]), float(certain[j])),
            "tx_rate": (fields["tx_rate"], float(flow[i]), float(certain[i])),
            "interface_status": fields["interface_status"],
        }
    return repaired
