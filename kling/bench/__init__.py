"""kling bench: what is claimed, measured."""
