"""Exit codes of all commands."""

# Done; the job failed, or the service does not answer; the request is wrong; interrupted, or cancelled.
DONE, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130
