"""Bodies and queries of requests, read strictly."""

import difflib
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute

from launcher.errors import JsonMalformed, Problem, RequestError
from launcher.request.service import json_body


def parsed(body: bytes) -> Any:
    """The values of a body in JSON.

    Raises:
        JsonMalformed: it cannot be read.
    """
    try:
        return json_body(body)
    except RequestError as error:
        raise JsonMalformed(str(error)) from error


def refuse_unknown(request: Request) -> None:
    """Refuse a query with a word in it that the route does not know: most likely it is misspelt.

    Raises:
        RequestError: names each.
    """
    if not request.scope["query_string"]:
        return
    route = request.scope.get("route")
    known = [each.alias for each in route.dependant.query_params] if isinstance(route, APIRoute) else []
    problems = []
    for name in dict.fromkeys(request.query_params):
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            remedy = f"did you mean {close[0]}?" if close else f"use {', '.join(known)}" if known else "take it out"
            problems.append(Problem(name[:80], f"is not known; {remedy}"))
    if problems:
        raise RequestError(problems[:20])
