"""What a job would take, told before it is run."""
