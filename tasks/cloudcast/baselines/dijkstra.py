"""The cheapest path by egress price to each destination by itself, for all partitions: the public initial program."""

from itertools import pairwise

import networkx as nx
from broadcast import BroadCastTopology


def search_algorithm(src, dsts, G, num_partitions):
    h = G.copy()
    h.remove_edges_from(list(h.in_edges(src)) + list(nx.selfloop_edges(h)))
    topology = BroadCastTopology(src, dsts, num_partitions)
    for dst in dsts:
        path = nx.dijkstra_path(h, src, dst, weight="cost")
        for a, b in pairwise(path):
            for partition in range(num_partitions):
                topology.append_dst_partition_path(dst, partition, [a, b, G[a][b]])
    return topology
