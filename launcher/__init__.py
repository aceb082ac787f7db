# The module that makes a job's attempts, unless a test names another.
ATTEMPT = "launcher.worker.attempt"
