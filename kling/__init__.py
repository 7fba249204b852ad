"""Kling: an open stack that makes text-to-video models and runs them. See README.md for the map of the house."""

__version__ = "0.1.0"
