"""Every check returns a Verdict; the pipeline cannot skip it."""
