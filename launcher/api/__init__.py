"""The HTTP API.

app.py          all of it, put together
middleware.py   what happens to every request: its id, its log line, its size, who may ask a service without keys
auth.py         a token becomes a caller, or a refusal
problems.py     errors become RFC 9457 problems
idempotency.py  a POST that is repeated is answered the same
bodies.py       bodies and queries of requests, read strictly
threads.py      which threads do what, so that nobody waits for what is slow
documented.py   what OpenAPI says beyond what FastAPI knows
models.py       the shapes of the answers
answers.py      answers are written, in the media type that is wanted
pages.py        cursors
view.py         a job becomes the object that is told of it
estimating.py, scheduling.py   the same of estimates and schedules, and how schedules are made
lookup.py       what a path names, if it is the caller's
jobs.py, rows.py, events.py, registry.py, schedules.py, operations.py   the routes
"""
