"""Batching policies: who is in the next iteration. One policy, one file, and a line in `begin`."""
