"""Stand-in for the public package of this name: what a strategy needs, and none of the simulator."""
