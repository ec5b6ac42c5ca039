"""Sends each destination its data straight, or over the one region that makes the way cheapest."""

from itertools import pairwise

from broadcast import BroadCastTopology

# EVOLVE-BLOCK-START
RELAY_GAIN = 0.0  # USD per GB that a relay has to save before it is used


def price(data):
    """What a link counts for when ways are compared."""
    return data["cost"]


def way_to(src, dst, G):
    """The regions that data for one destination passes."""
    best_way = [src, dst]
    best_price = price(G[src][dst]) - RELAY_GAIN
    for relay in G.nodes:
        if relay in (src, dst) or not G.has_edge(src, relay) or not G.has_edge(relay, dst):
            continue
        relay_price = price(G[src][relay]) + price(G[relay][dst])
        if relay_price < best_price:
            best_price = relay_price
            best_way = [src, relay, dst]
    return best_way


def search_algorithm(src, dsts, G, num_partitions):
    """A way to every destination, the same for all partitions."""
    topology = BroadCastTopology(src, dsts, num_partitions)
    for dst in dsts:
        way = way_to(src, dst, G)
        for a, b in pairwise(way):
            for partition in range(num_partitions):
                topology.append_dst_partition_path(dst, partition, [a, b, G[a][b]])
    return topology


# EVOLVE-BLOCK-END
