"""The command line.

exits.py      exit codes
arguments.py  options that several commands share
program.py    parses, calls, translates errors; the commands for jobs on this machine
jobs.py       `penstock jobs …`
service.py    the commands that ask a service
here.py       what the commands do with jobs on this machine
keys.py       … with API keys
remote.py     … with jobs of a service
registry.py   … with its models, connections and schedules
told.py       what is shown of what a service tells
"""

from launcher.cli.program import main

__all__ = ["main"]
