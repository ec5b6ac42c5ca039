"""Repair of corrupted interface counters of a network, with a confidence for each (Hodor, HotNets 2024)."""
