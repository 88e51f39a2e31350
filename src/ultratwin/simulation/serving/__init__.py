"""Requests on replicas: schedulers, KV blocks, routing, disaggregation; an event loop compiled with Numba."""
