"""Camera poses, paths and their choice."""
