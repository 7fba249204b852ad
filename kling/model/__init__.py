"""The networks: DiT (dit.py, read this first), VAE, text encoder; how they are stored, counted, spread over ranks."""
