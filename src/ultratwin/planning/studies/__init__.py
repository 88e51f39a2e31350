"""Studies: many scenarios, each finished one kept at once, on this machine's cores or on a Ray cluster."""
