"""Storage: the journal (append-only, durable), and the views made by replaying it."""
