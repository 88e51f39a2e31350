"""What arrives at a server: requests by a law of chance, from a trace, or in conversations."""
