"""The cheapest arborescence by egress price over source and destinations alone, for all partitions."""

from itertools import pairwise

import networkx as nx
from broadcast import BroadCastTopology


def search_algorithm(src, dsts, G, num_partitions):
    among = [src, *dsts]
    h = nx.DiGraph()
    h.add_weighted_edges_from((a, b, G[a][b]["cost"]) for a in among for b in dsts if a != b and G.has_edge(a, b))
    tree = nx.minimum_spanning_arborescence(h, attr="weight")
    topology = BroadCastTopology(src, dsts, num_partitions)
    for dst in dsts:
        path = nx.shortest_path(tree, src, dst)
        for a, b in pairwise(path):
            for partition in range(num_partitions):
                topology.append_dst_partition_path(dst, partition, [a, b, G[a][b]])
    return topology
