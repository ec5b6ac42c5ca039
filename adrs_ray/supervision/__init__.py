"""Supervision: the outer loop, where a person watches and steers."""
