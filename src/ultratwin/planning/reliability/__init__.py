"""Runs that fail and go on: machines, checkpoints, spares, until the run is done."""
