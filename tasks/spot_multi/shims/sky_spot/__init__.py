"""Stand-in for the public simulator's package, as far as strategies use it."""
