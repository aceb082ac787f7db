"""What OpenAPI says beyond what FastAPI knows: bodies that it does not read, and answers that it does not make."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from launcher.api.answers import ARROW, JSON, TEXT
from launcher.api.models import ProblemDetails, StateEvent
from launcher.api.problems import KINDS, MEDIA_TYPE
from launcher.request.service import Defaults, schema_of, schemas

_ALWAYS = ("internal",)
# Of every route that asks for a key.
_GUARDED = ("unauthorized", "forbidden", "store-unavailable", "internal")
_PROBLEM = {"$ref": "#/components/schemas/ProblemDetails"}
_AGAIN = {"Retry-After": {"description": "Seconds until it may be tried again.", "schema": {"type": "integer"}}}
_LOCATION = {"Location": {"description": "The path of what was made.", "schema": {"type": "string"}}}
_REPLAYED = {
    "Idempotency-Replayed": {
        "description": "The request was answered before, and nothing was done again.",
        "schema": {"type": "string", "const": "true"},
    }
}
_HEADERS: Mapping[str, Mapping[str, Any]] = {
    "unauthorized": {"WWW-Authenticate": {"description": "How to come in.", "schema": {"const": "Bearer"}}},
    "method-not-allowed": {"Allow": {"description": "Methods of the path.", "schema": {"type": "string"}}},
    "idempotency-key-busy": _AGAIN,
    "too-many-requests": _AGAIN,
    "store-unavailable": _AGAIN,
    "unavailable": _AGAIN,
    "overloaded": _AGAIN,
}

Responses = dict[int | str, dict[str, Any]]


def refusals(*slugs: str, guarded: bool = True) -> Responses:
    """The problems that a route can answer with, for `responses=`.

    Args:
        guarded: the route asks for a key.
    """
    found: Responses = {}
    for slug in dict.fromkeys((*slugs, *(_GUARDED if guarded else _ALWAYS))):
        kind = KINDS[slug]
        entry = found.setdefault(kind.status, {"description": "", "content": {MEDIA_TYPE: {"schema": _PROBLEM}}})
        entry["description"] = "; ".join(filter(None, (entry["description"], f"{kind.title} (`{slug}`)")))
        examples = entry["content"][MEDIA_TYPE].setdefault("examples", {})
        examples[slug] = {"value": _example(slug)}
        if slug in _HEADERS:
            entry.setdefault("headers", {}).update(_HEADERS[slug])
    return found


def posting(*slugs: str) -> Responses:
    """The same of a POST, which may have an Idempotency-Key, and so be refused for it."""
    return refusals("idempotency-key-reused", "idempotency-key-busy", "invalid-request", "body-too-large", *slugs)


def posting_json(*slugs: str) -> Responses:
    """The same of a POST with a body."""
    return posting("malformed-json", "unsupported-media-type", *slugs)


def made(model: Any, description: str, *, posted: bool = True, located: bool = True) -> dict[str, Any]:
    """An answer to a POST.

    Args:
        posted: it may be the answer to the same request from before.
        located: it says where what was made is.
    """
    headers = (_REPLAYED if posted else {}) | (_LOCATION if located else {})
    return {"model": model, "description": description, "headers": headers}


def body(name: str, defaults: Defaults | None = None) -> dict[str, Any]:
    """The body of a request, for `openapi_extra=`.

    Args:
        name: of one of `launcher.request.service.schemas`.
    """
    media: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{name}"}}
    examples = schema_of(name).get("examples")
    if examples:
        media["examples"] = {f"example {n}": {"value": value} for n, value in enumerate(examples, 1)}
    return {"requestBody": {"required": True, "content": {JSON: media}}}


def arrow_too(description: str) -> dict[str, Any]:
    """What is to be said of an answer that is JSON or Arrow, as `Accept` asks."""
    return {
        "description": description,
        "content": {ARROW: {"schema": {"type": "string", "contentMediaType": ARROW}}},
        "headers": {"X-Next-Cursor": {"description": "`next_cursor`, of Arrow.", "schema": {"type": "string"}}},
    }


def text_too(description: str) -> dict[str, Any]:
    """What is to be said of an answer that is JSON or plain text, as `Accept` asks."""
    return {
        "description": description,
        "content": {TEXT: {"schema": {"type": "string"}}},
        "headers": {"X-Next-Offset": {"description": "`next_offset`, of text.", "schema": {"type": "integer"}}},
    }


def openapi(app: FastAPI, defaults: Defaults, keyless: bool) -> dict[str, Any]:
    """The whole description of `app`."""
    described = get_openapi(
        title=app.title,
        version=app.version,
        openapi_version="3.1.0",
        summary=app.summary,
        description=app.description,
        routes=app.routes,
    )
    components = described.setdefault("components", {})
    named = components.setdefault("schemas", {})
    named.update(schemas(defaults))
    for model in (ProblemDetails, StateEvent):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}", mode="serialization")
        named.update(schema.pop("$defs", {}))
        named[model.__name__] = schema
    components["securitySchemes"] = {
        "key": {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key, as `penstock keys create` prints it. A service that has no key asks for none, "
            "and answers its own machine only.",
        }
    }
    for path, operations in described["paths"].items():
        for operation in operations.values():
            if path in OPEN_PATHS:
                operation["security"] = []
            else:
                operation["security"] = [{"key": []}, {}] if keyless else [{"key": []}]
    return described


# Nobody is asked for a key there.
OPEN_PATHS = ("/healthz", "/readyz")


def _example(slug: str) -> dict[str, Any]:
    kind = KINDS[slug]
    example: dict[str, Any] = {
        "type": f"https://penstock.dev/problems/{slug}",
        "title": kind.title,
        "status": kind.status,
        "detail": f"{kind.title[:1].lower()}{kind.title[1:]}",
        "instance": "/api/v1/inference/batch",
    }
    if slug == "invalid-request":
        example["errors"] = [{"field": "config.batch_size", "message": "is 0; use a whole number of at least 1"}]
    return {**example, "remedy": kind.remedy}
