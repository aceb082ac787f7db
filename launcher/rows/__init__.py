"""Looking at rows: those that a job published, and those that it rejected."""
