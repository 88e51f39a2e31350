"""Pictures and videos that a diffusion transformer makes."""
