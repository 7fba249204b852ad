"""Curation on Ray Data: pipeline.py is the recipe. Run with `python -m data`."""
