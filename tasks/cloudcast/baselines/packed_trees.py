"""One exact Steiner tree per partition, priced so that the trees share the capacity of links and regions.

Trees come from the Dreyfus-Wagner recursion (1971), in its directed form, over shortest distances. They are laid one
partition at a time under prices that rise with the time that a link, or one end of it, would take compared with a
target; then each is taken up and laid again while the whole plan gets cheaper. Targets and strengths of the rise come
from a grid, and the plan that costs least in all, machines included, is given back.
"""

import numpy as np
from broadcast import BroadCastTopology

TARGETS = (1.0, 1.35, 1.7, 2.2)
STRENGTHS = (0.1, 1.0, 3.0)
STEEPNESS = 4
ROUNDS = 1
MOST_BUNDLES = 12  # beyond as many partitions, several share a tree
MOST_TERMINALS = 8  # beyond, trees grow destination by destination


class Job:
    def __init__(self, src, dsts, G, partitions):
        self.names = list(G.nodes)
        self.index = {name: i for i, name in enumerate(self.names)}
        count = len(self.names)
        self.source = self.index[src]
        self.ends = [self.index[d] for d in dsts]
        self.partitions = partitions
        self.bundles = [len(part) for part in np.array_split(range(partitions), min(partitions, MOST_BUNDLES))]
        self.gb = G.graph["data_vol"] / partitions
        self.rate = G.graph["num_vms"] * G.graph["instance_cost_per_hour"] / 3600
        self.cost = np.full((count, count), np.inf)
        self.throughput = np.full((count, count), 1e-9)
        for a, b, data in G.edges(data=True):
            self.cost[self.index[a], self.index[b]] = data["cost"] * self.gb
            self.throughput[self.index[a], self.index[b]] = data["throughput"]
        self.cost[:, self.source] = np.inf
        vms = G.graph["num_vms"]
        providers = [name.split(":")[0] for name in self.names]
        self.into = np.array([vms * G.graph["ingress_limit"][p] for p in providers])
        self.out = np.array([vms * G.graph["egress_limit"][p] for p in providers])

    def least_time(self):
        total = 8 * self.gb * self.partitions
        return total / min(self.out[self.source], self.into[self.ends].min())

    def plan_cost(self, loads):
        """USD of all trees together, and the seconds that they take."""
        used = loads > 0
        wanted = np.where(used, self.throughput, 0.0)
        flow = self.throughput.copy()
        out = np.where(wanted.sum(1) > self.out, self.out / np.maximum(used.sum(1), 1), np.inf)
        into = np.where(wanted.sum(0) > self.into, self.into / np.maximum(used.sum(0), 1), np.inf)
        flow = np.minimum(np.minimum(flow, out[:, None]), into[None, :])
        seconds = (loads[used] * 8 * self.gb / flow[used]).max()
        regions = int((used.any(0) | used.any(1)).sum())
        return (loads[used] * self.cost[used]).sum() + regions * self.rate * seconds, seconds

    def prices(self, loads, target, strength):
        """What one more partition on each link is charged: its egress, the delay, and a region not in use yet."""
        step = 8 * self.gb / target
        on_link = (loads + 1) * step / self.throughput
        out = (loads.sum(1) + 1) * step / self.out
        into = (loads.sum(0) + 1) * step / self.into
        pressure = np.maximum(on_link, np.maximum(out[:, None], into[None, :]))
        scale = strength * self.rate * (len(self.ends) + 1) * target
        charged = self.cost + scale * np.minimum(pressure, 50.0) ** STEEPNESS
        idle = loads.sum(0) == 0
        idle[self.ends] = False
        return charged + np.where(idle, self.rate * target / self.partitions, 0.0)[None, :]


def closure(price):
    """Shortest distances between all regions, and the region after the first on the way."""
    count = len(price)
    distance = price.copy()
    np.fill_diagonal(distance, 0.0)
    step = np.tile(np.arange(count), (count, 1))
    for k in range(count):
        through = distance[:, k, None] + distance[None, k, :]
        better = through < distance
        distance = np.where(better, through, distance)
        step = np.where(better, step[:, k, None], step)
    return distance, step


def path(step, a, b):
    links = []
    while a != b:
        links.append((a, int(step[a, b])))
        a = int(step[a, b])
    return links


def steiner_tree(price, source, ends):
    """Links of a cheapest tree from the source to all ends."""
    distance, step = closure(price)
    if len(ends) > MOST_TERMINALS:
        return grown_tree(distance, step, source, ends)
    full = (1 << len(ends)) - 1
    best, joined_at, half = {}, {}, {}
    for subset in range(1, full + 1):
        if subset & (subset - 1) == 0:
            best[subset] = distance[:, ends[subset.bit_length() - 1]]
            continue
        low = subset & -subset
        joined = np.full(len(price), np.inf)
        parts = np.zeros(len(price), dtype=int)
        part = (subset - 1) & subset
        while part:
            if part & low:
                value = best[part] + best[subset ^ part]
                better = value < joined
                joined = np.where(better, value, joined)
                parts = np.where(better, part, parts)
            part = (part - 1) & subset
        total = distance + joined[None, :]
        joined_at[subset] = total.argmin(1)
        best[subset] = total.min(1)
        half[subset] = parts
    links, waiting = set(), [(source, full)]
    while waiting:
        region, subset = waiting.pop()
        if subset & (subset - 1) == 0:
            links.update(path(step, region, ends[subset.bit_length() - 1]))
            continue
        fork = int(joined_at[subset][region])
        links.update(path(step, region, fork))
        part = int(half[subset][fork])
        waiting += [(fork, part), (fork, subset ^ part)]
    return links


def grown_tree(distance, step, source, ends):
    links, inside, outside = set(), [source], list(ends)
    while outside:
        near = distance[np.ix_(inside, outside)]
        i, j = np.unravel_index(near.argmin(), near.shape)
        way = path(step, inside[i], outside[j])
        links.update(way)
        inside += [b for _, b in way if b not in inside]
        outside = [b for b in outside if b not in inside]
    return links


def lay(job, target, strength):
    loads = np.zeros(job.cost.shape)
    trees = []

    def change(tree, amount):
        for a, b in tree:
            loads[a, b] += amount

    for size in job.bundles:
        trees.append(steiner_tree(job.prices(loads, target, strength), job.source, job.ends))
        change(trees[-1], size)
    cost = job.plan_cost(loads)[0]
    for _ in range(ROUNDS):
        before = cost
        for i, (old, size) in enumerate(zip(trees, job.bundles, strict=True)):
            change(old, -size)
            new = steiner_tree(job.prices(loads, target, strength), job.source, job.ends)
            change(new, size)
            changed = job.plan_cost(loads)[0]
            if changed < cost:
                cost, trees[i] = changed, new
            else:
                change(new, -size)
                change(old, size)
        if cost == before:
            break
    return cost, trees


def routes(tree, source, ends):
    """For each end the links that lead to it."""
    before = {}
    waiting = [source]
    while waiting:
        region = waiting.pop()
        for a, b in tree:
            if a == region and b not in before and b != source:
                before[b] = a
                waiting.append(b)
    found = {}
    for end in ends:
        links, region = [], end
        while region != source:
            links.append((before[region], region))
            region = before[region]
        found[end] = links[::-1]
    return found


def search_algorithm(src, dsts, G, num_partitions):
    job = Job(src, dsts, G, num_partitions)
    least = job.least_time()
    best = None
    for factor in TARGETS:
        for strength in STRENGTHS:
            plan = lay(job, least * factor, strength)
            if best is None or plan[0] < best[0]:
                best = plan
    topology = BroadCastTopology(src, dsts, num_partitions)
    trees = [tree for tree, size in zip(best[1], job.bundles, strict=True) for _ in range(size)]
    for partition, tree in enumerate(trees):
        for dst, links in zip(dsts, routes(tree, job.source, job.ends).values(), strict=True):
            edges = [[job.names[a], job.names[b], G[job.names[a]][job.names[b]]] for a, b in links]
            topology.set_dst_partition_paths(dst, partition, edges)
    return topology
