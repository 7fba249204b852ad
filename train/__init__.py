"""Training on Ray Train + DeepSpeed: loop.py is readable alone. Run with `python -m train`."""
