"""Baseline: the best we wrote. Which faults explain the readings best, then the answer of least expected loss.

Each link has two pairs of readings, own and opposite. A fault of an interface shows as a ratio between them that the
factors of the fault can make; the ratios that a fault at the other end makes lie elsewhere, so the readings alone tell
the two apart half of the time. In snapshots where the routers none of whose links agree account for every disagreement,
faults are taken to hit whole routers, and all sets of such routers are weighed. From the posterior over {neither, own,
opposite, both} follow weighted values that the truth may have; the answer is the one with the least expected loss under
the task's formula, and its confidence is their weight within 5 %.
"""

import itertools

import numpy as np

NOISE = 0.085  # log ratio of two intact readings stays below this
RANGES = ((0.5, 0.8), (1.2, 1.5))
HIT = 0.2
MOST_ROUTERS = 10  # up to which all sets are weighed
STRAY = 1e-6  # density of a ratio that no fault makes
IDLE = 0.02  # probability that a direction of a link carries nothing
CLOSE = 0.05

FACTORS = np.concatenate([np.linspace(low, high, 31) for low, high in RANGES])
EDGE = 0.03


def factor_density(factor):
    """Of the factor of a fault, edges widened by the noise."""
    inside = [low * (1.0 - EDGE) <= factor <= high * (1.0 + EDGE) for low, high in RANGES]
    return 0.5 / 0.3 if any(inside) else STRAY


_SPACING = np.linspace(np.log(0.3), np.log(3.1), 121)
_LOG_RATIOS = np.log(FACTORS[:, None] / FACTORS[None, :]).ravel()
_BOTH = np.histogram(_LOG_RATIOS, bins=_SPACING, density=True)[0]


def log_densities(own, opposite):
    """Log density of log(own / opposite) under faults at (neither, own, opposite, both)."""
    if own <= 0.0 or opposite <= 0.0:
        # Zeros come from faults that drop: the end that reads zero is hit, and with both at zero both are.
        silent = own == opposite
        neither, both = (IDLE, 1.0) if silent else (STRAY, STRAY)
        return np.log([neither, own <= 0.0 < opposite or STRAY, opposite <= 0.0 < own or STRAY, both])
    ratio = own / opposite
    place = int(np.searchsorted(_SPACING, np.log(ratio))) - 1
    both = _BOTH[place] if 0 <= place < len(_BOTH) else 0.0
    neither = 1.0 / (2.0 * NOISE) * 2.0 * (1.0 - abs(np.log(ratio)) / NOISE) if abs(np.log(ratio)) < NOISE else STRAY
    return np.log(
        [max(neither, STRAY), factor_density(ratio) * ratio, factor_density(1.0 / ratio) / ratio, max(both, STRAY)]
    )


def link_evidence(telemetry):
    """Per link, as (interface, other interface): log likelihoods of faults at (neither, first, second, both)."""
    links = {}
    for name, fields in telemetry.items():
        other = fields["connected_to"]
        if (other, name) not in links:
            peer = telemetry[other]
            links[name, other] = log_densities(fields["rx_rate"], peer["tx_rate"]) + log_densities(
                fields["tx_rate"], peer["rx_rate"]
            )
    return links


def disagree(evidence):
    return evidence[0] < max(evidence[1:])


def suspects(telemetry, topology, links):
    """Routers none of whose links agrees, if they account for every disagreement; else None."""
    agreeing, disputed = set(), []
    for (name, _), evidence in links.items():
        ends = telemetry[name]["local_router"], telemetry[name]["remote_router"]
        if disagree(evidence):
            disputed.append(ends)
        else:
            agreeing.update(ends)
    routers = [router for router in topology if topology[router] and router not in agreeing]
    covered = all(a in routers or b in routers for a, b in disputed)
    return routers if covered and disputed and len(routers) <= MOST_ROUTERS else None


def posterior_of_routers(telemetry, links, routers):
    """Posterior of (neither, first, second, both) per link when faults hit whole routers."""
    keys = list(links)
    evidence = np.array([links[key] for key in keys])
    ends = [(telemetry[a]["local_router"], telemetry[b]["local_router"]) for a, b in keys]
    totals = np.zeros(evidence.shape)
    weights, states = [], []
    for hits in itertools.product((0, 1), repeat=len(routers)):
        hit = dict(zip(routers, hits, strict=True))
        state = np.array([hit.get(a, 0) + 2 * hit.get(b, 0) for a, b in ends])
        count = sum(hits)
        prior = count * np.log(HIT) + (len(hits) - count) * np.log(1.0 - HIT)
        weights.append(prior + evidence[np.arange(len(keys)), state].sum())
        states.append(state)
    weights = np.exp(np.array(weights) - max(weights))
    for weight, state in zip(weights / weights.sum(), states, strict=True):
        totals[np.arange(len(keys)), state] += weight
    return dict(zip(keys, totals, strict=True))


def posterior_of_interfaces(links):
    """The same when each interface is hit by chance."""
    prior = np.log([(1.0 - HIT) ** 2, HIT * (1.0 - HIT), HIT * (1.0 - HIT), HIT**2])
    posterior = {}
    for key, evidence in links.items():
        weights = np.exp(evidence + prior - (evidence + prior).max())
        posterior[key] = weights / weights.sum()
    return posterior


def points(own, opposite, posterior, elsewhere):
    """(values, weights) that the truth of a counter may have."""
    neither, own_hit, opposite_hit, both = posterior
    if own <= 0.0 and opposite <= 0.0:
        if neither > 0.5 or len(elsewhere) == 0:
            return np.zeros(1), np.ones(1)
        return elsewhere, np.full(len(elsewhere), 1.0 / len(elsewhere))
    values, weights = [0.75 * own + 0.25 * opposite, opposite, own], [neither, own_hit, opposite_hit]
    if both > 1e-3 and own > 0.0:
        implied = own / FACTORS
        plausible = np.array([factor_density(opposite / value) for value in implied]) * FACTORS
        values.extend(implied)
        weights.extend(both * plausible / plausible.sum())
    return np.array(values), np.array(weights)


def least_loss(values, weights):
    """(value, confidence) of least expected loss."""
    tried = np.unique(np.concatenate((values[weights > 1e-4], [float(values @ weights)])))
    error = np.abs(tried[:, None] - values) / np.maximum(values, 0.01)
    right = (error <= CLOSE) @ weights
    loss = 0.75 * (np.minimum(error, 1.0) @ weights) + 0.1 * (1.0 - right) + 0.1 * right * (1.0 - right)
    best = int(np.argmin(loss))
    return float(tried[best]), float(min(right[best], 0.999))


def run_repair(telemetry, topology):
    links = link_evidence(telemetry)
    routers = suspects(telemetry, topology, links)
    posterior = posterior_of_interfaces(links) if routers is None else posterior_of_routers(telemetry, links, routers)
    quiet = all(not disagree(evidence) for evidence in links.values())
    rates = [rate for fields in telemetry.values() for rate in (fields["rx_rate"], fields["tx_rate"]) if rate > 0.0]
    elsewhere = np.zeros(0) if quiet else np.array(rates)
    repaired = {}
    for (first, second), weights in posterior.items():
        for name, other, order in ((first, second, weights), (second, first, weights[[0, 2, 1, 3]])):
            fields, peer = telemetry[name], telemetry[other]
            answer = {"interface_status": "up"}
            for own, opposite in (("rx_rate", "tx_rate"), ("tx_rate", "rx_rate")):
                value, confidence = least_loss(*points(fields[own], peer[opposite], order, elsewhere))
                answer[own] = (fields[own], value, confidence)
            repaired[name] = answer
    return repaired
