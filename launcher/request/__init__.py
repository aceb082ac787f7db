"""Requests become plain values, read strictly, every mistake told in one line with its remedy.

The only package beside `launcher.api` that knows pydantic.

reading.py   text of YAML or JSON becomes values
parts.py     what a job's spec may hold, and what is told of a field
messages.py  how a mistake is told
checking.py  values are held against all that, and all mistakes are gathered
spec.py      a file becomes a `JobSpec`
bodies.py    what the service's bodies may hold, and their JSON schemas
service.py   a body becomes a request to the service
"""

from launcher.request.spec import parse_spec, read_body, read_spec, spec_of

__all__ = ["parse_spec", "read_body", "read_spec", "spec_of"]
