"""What is drawn from the grid: by a chip, over a step, over time."""
