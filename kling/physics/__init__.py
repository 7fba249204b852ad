"""Simulation under the laws of motion, and how far pixels are from them."""
