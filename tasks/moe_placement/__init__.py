"""Task moe_placement: where the experts of a served mixture-of-experts model lie, window after window."""
