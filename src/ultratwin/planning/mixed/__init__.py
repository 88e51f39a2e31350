"""Jobs and services on two kinds of chips."""
