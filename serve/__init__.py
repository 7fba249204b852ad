"""Serving on Ray Serve: app.py is the graph on one page. Run with `python -m serve`."""
