"""Sends each destination its data over the cheapest path, found one destination at a time."""

import heapq
from itertools import pairwise

from broadcast import BroadCastTopology

# EVOLVE-BLOCK-START
HOP_PRICE = 0.0  # USD per GB that each link counts for beside its own price
DELAY_PRICE = 0.001  # USD per GB that a link of 1 Gbit/s counts for; one of 10 Gbit/s a tenth of it
USED_FACTOR = 0.8  # what the price of a link counts for that an earlier destination uses


def link_price(data, used):
    """What a link counts for when paths are compared."""
    price = data["cost"] + HOP_PRICE + DELAY_PRICE / data["throughput"]
    if used:
        price = price * USED_FACTOR
    return price


def cheapest_path(src, dst, G, used_links):
    """Dijkstra's algorithm: the regions of the path from src to dst with the least sum of link prices."""
    distance = {src: 0.0}
    before = {}
    done = set()
    queue = [(0.0, src)]
    while queue:
        so_far, region = heapq.heappop(queue)
        if region == dst:
            break
        if region in done:
            continue
        done.add(region)
        for neighbour, data in G[region].items():
            total = so_far + link_price(data, (region, neighbour) in used_links)
            if neighbour not in distance or total < distance[neighbour]:
                distance[neighbour] = total
                before[neighbour] = region
                heapq.heappush(queue, (total, neighbour))
    path = [dst]
    while path[-1] != src:
        path.append(before[path[-1]])
    path.reverse()
    return path


def search_algorithm(src, dsts, G, num_partitions):
    """One path per destination, the same for all partitions."""
    topology = BroadCastTopology(src, dsts, num_partitions)
    used_links = set()
    for dst in dsts:
        path = cheapest_path(src, dst, G, used_links)
        for a, b in pairwise(path):
            used_links.add((a, b))
            for partition in range(num_partitions):
                topology.append_dst_partition_path(dst, partition, [a, b, G[a][b]])
    return topology


# EVOLVE-BLOCK-END
