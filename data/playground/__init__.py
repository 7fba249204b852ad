"""The playground: 3-D scenes simulated and rendered with MuJoCo, each clip with its ground truth."""
