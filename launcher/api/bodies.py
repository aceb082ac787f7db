"""Bodies and queries of requests, read strictly."""

import difflib
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.routing import APIRoute

from launcher.errors import JsonMalformed, MediaTypeUnsupported, Problem, RequestError
from launcher.request.service import json_body


async def json_bytes(request: Request) -> bytes:
    """The body of a request that says that it is JSON.

    Raises:
        MediaTypeUnsupported: it says something else.
        BodyTooLarge: it has too many bytes.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    # A page of another site can have a browser send other types without asking.
    if media_type != "application/json":
        shown = f"{media_type[:60]!r}" if media_type else "missing"
        raise MediaTypeUnsupported(f"Content-Type is {shown}; send application/json")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise MediaTypeUnsupported("Content-Encoding is not read here; send the body as it is")
    return await request.body()


JsonBytes = Annotated[bytes, Depends(json_bytes)]


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
