"""How latents become video: the flow, its samplers, guidance, chunk-causal streaming."""
