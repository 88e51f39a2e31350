"""Ultratwin: a software twin of AI-accelerator supercomputers."""

__version__ = "0.1.0"
