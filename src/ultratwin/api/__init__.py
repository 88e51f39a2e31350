"""What a program calls, and what it gets: one module for each question."""
