"""Sends all destinations their data over one tree, which destinations join one after another."""

import heapq
from itertools import pairwise

from broadcast import BroadCastTopology

# EVOLVE-BLOCK-START
HOP_PRICE = 0.002  # USD per GB that each new link counts for beside its own price
DELAY_PRICE = 0.02  # USD per GB that a link of 1 Gbit/s counts for; one of 10 Gbit/s a tenth of it
FAN_OUT_PRICE = 0.004  # USD per GB for each link that already leaves the same region
RELAY_PRICE = 0.005  # USD per GB for passing a region that is no destination
TREE_SHARE = 0.5  # part of its way from the source that a region in the tree counts for when a path starts there


def link_price(a, b, data, out_degree, dsts):
    """What a new link counts for when paths are compared."""
    price = data["cost"] + HOP_PRICE + DELAY_PRICE / data["throughput"]
    price = price + FAN_OUT_PRICE * out_degree.get(a, 0)
    if b not in dsts:
        price = price + RELAY_PRICE
    return price


def price_from_source(edges):
    """What the way to a region in the tree costs, in USD per GB."""
    total = 0.0
    for _, _, data in edges:
        total = total + data["cost"]
    return total


def cheapest_path(dst, G, tree, out_degree, dsts):
    """Dijkstra's algorithm from the whole tree: its last region, then those that lead from there to dst."""
    distance = {region: TREE_SHARE * price_from_source(edges) for region, edges in tree.items()}
    before = {}
    done = set()
    queue = [(start, region) for region, start in distance.items()]
    heapq.heapify(queue)
    while queue:
        so_far, region = heapq.heappop(queue)
        if region == dst:
            break
        if region in done:
            continue
        done.add(region)
        for neighbour, data in G[region].items():
            total = so_far + link_price(region, neighbour, data, out_degree, dsts)
            if neighbour not in distance or total < distance[neighbour]:
                distance[neighbour] = total
                before[neighbour] = region
                heapq.heappush(queue, (total, neighbour))
    path = [dst]
    while path[-1] not in tree:
        path.append(before[path[-1]])
    path.reverse()
    return path


def search_algorithm(src, dsts, G, num_partitions):
    """One tree, the same for all partitions; destinations join in the given order."""
    topology = BroadCastTopology(src, dsts, num_partitions)
    tree = {src: []}  # for each region in it the edges that lead there
    out_degree = {}
    for dst in dsts:
        path = cheapest_path(dst, G, tree, out_degree, dsts)
        for a, b in pairwise(path):
            tree[b] = [*tree[a], [a, b, G[a][b]]]
            out_degree[a] = out_degree.get(a, 0) + 1
        for edge in tree[dst]:
            for partition in range(num_partitions):
                topology.append_dst_partition_path(dst, partition, edge)
    return topology


# EVOLVE-BLOCK-END
