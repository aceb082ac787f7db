"""A job's own process: it makes one attempt, and tells how it goes."""
