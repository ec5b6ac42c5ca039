"""Spot instances under a deadline, one region: when to run on spot, on demand or not at all."""
