"""The HTTP client and the command line; loads no torch."""
