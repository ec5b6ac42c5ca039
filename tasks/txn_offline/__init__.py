"""Offline transaction scheduling: order the transactions of a batch so that the last one ends early."""
