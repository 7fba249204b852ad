"""Memory, time and cost before a job runs."""
