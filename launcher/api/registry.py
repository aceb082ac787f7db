"""Models and connections: what jobs name."""

import os
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from launcher.admission import Caller
from launcher.api import documented, models
from launcher.api.answers import answer
from launcher.api.auth import Submitter, Viewer, check_role
from launcher.api.bodies import parsed
from launcher.api.idempotency import OnceOnlyJson
from launcher.api.lookup import checked_connection_name, checked_model_id, own_connection, own_model
from launcher.api.pages import Cursor, Limit, name_cursor, page, read_name_cursor
from launcher.api.view import stamp
from launcher.errors import LauncherError, PathForbidden, Problem, RequestError, StoreUnavailable
from launcher.request.service import ModelRequest, connection_request, model_request
from launcher.service import Service
from launcher.state.idempotency import Turn
from launcher.state.registry import Model, NamedConnection
from predictors.base import Features, ModelSpec, Outputs
from transforms.connection import Connection

router = APIRouter(prefix="/api/v1")

# The largest that a version can be.
_Version = Annotated[int, Path(ge=1, le=2_147_483_647, examples=[3])]


@router.post(
    "/models",
    status_code=201,
    tags=["models"],
    summary="Register a model, or a new version of it",
    response_model=models.ModelAnswer,
    responses={
        201: documented.made(models.ModelAnswer, "The version; the newest one, if it is the same."),
        **documented.posting_json(),
    },
    openapi_extra=documented.body("RegisteredModelBody"),
)
def register_model(request: Request, caller: Submitter, once: OnceOnlyJson) -> Response:
    """Jobs name it by its id. A Python class needs an admin's key, for it is code that the service runs."""
    service: Service = request.app.state.service

    def act(_: Turn) -> Response:
        asked = model_request(parsed(once.body))
        if asked.model.runs_code:
            check_role(caller, "admin", "register a model of flavor python, which runs code")
        spec, folder = _confined(service, caller, asked)
        model = service.models.register(caller.tenant, asked.model_id, spec, folder, asked.description)
        where = f"/api/v1/models/{model.model_id}/versions/{model.version}"
        return answer(_model_object(model), 201, {"Location": where})

    return once(act)


@router.get(
    "/models",
    tags=["models"],
    summary="List models",
    response_model=models.ModelPage,
    responses=documented.refusals("invalid-request"),
)
def list_models(request: Request, caller: Viewer, limit: Limit = 50, cursor: Cursor = None) -> Response:
    """The newest version of each, by id."""
    service: Service = request.app.state.service
    found = service.models.page(caller.tenant, limit + 1, read_name_cursor("m", cursor))
    listed, following = page(found, limit, _model_object, lambda model: name_cursor("m", model.model_id))
    return answer({"models": listed, "next_cursor": following})


@router.get(
    "/models/{model_id}",
    tags=["models"],
    summary="The newest version of a model",
    response_model=models.ModelAnswer,
    responses=documented.refusals("not-found", "invalid-request"),
)
def show_model(request: Request, caller: Viewer, model_id: str) -> Response:
    """What a job gets that names no version."""
    return answer(_model_object(own_model(request.app.state.service, caller, model_id)))


@router.get(
    "/models/{model_id}/versions",
    tags=["models"],
    summary="All versions of a model",
    response_model=models.ModelVersions,
    responses=documented.refusals("not-found", "invalid-request"),
)
def list_versions(request: Request, caller: Viewer, model_id: str) -> Response:
    """The newest first."""
    service: Service = request.app.state.service
    versions = service.models.versions(caller.tenant, checked_model_id(model_id))
    return answer({"versions": [_model_object(each) for each in versions]})


@router.get(
    "/models/{model_id}/versions/{version}",
    tags=["models"],
    summary="One version of a model",
    response_model=models.ModelAnswer,
    responses=documented.refusals("not-found", "invalid-request"),
)
def show_version(request: Request, caller: Viewer, model_id: str, version: _Version) -> Response:
    """As it was registered; a version is never changed."""
    return answer(_model_object(own_model(request.app.state.service, caller, model_id, version)))


@router.delete(
    "/models/{model_id}",
    status_code=204,
    tags=["models"],
    summary="Delete a model",
    response_class=Response,
    responses=documented.refusals("not-found", "conflict", "invalid-request"),
)
def delete_model(request: Request, caller: Submitter, model_id: str) -> Response:
    """All versions, unless a job that is not over, or a schedule, needs one. Its files stay where they are."""
    request.app.state.service.models.delete(caller.tenant, checked_model_id(model_id))
    return Response(status_code=204)


@router.delete(
    "/models/{model_id}/versions/{version}",
    status_code=204,
    tags=["models"],
    summary="Delete one version of a model",
    response_class=Response,
    responses=documented.refusals("not-found", "conflict", "invalid-request"),
)
def delete_version(request: Request, caller: Submitter, model_id: str, version: _Version) -> Response:
    """Unless a job that is not over, or a schedule, needs it. Its number is not given again."""
    request.app.state.service.models.delete(caller.tenant, checked_model_id(model_id), version)
    return Response(status_code=204)


@router.post(
    "/connections",
    status_code=201,
    tags=["connections"],
    summary="Register a connection, or replace it",
    response_model=models.ConnectionAnswer,
    responses={
        201: documented.made(models.ConnectionAnswer, "It is registered."),
        200: documented.made(models.ConnectionAnswer, "It was there, and is replaced."),
        **documented.posting_json(),
    },
    openapi_extra=documented.body("ConnectionBody"),
)
def register_connection(request: Request, caller: Submitter, once: OnceOnlyJson) -> Response:
    """Jobs name it. Its uri is kept, and never shown again."""
    service: Service = request.app.state.service

    def act(_: Turn) -> Response:
        asked = connection_request(parsed(once.body))
        try:
            uri = service.reach.check_connection(caller.tenant, asked.uri)
        except (RequestError, StoreUnavailable):
            raise
        except PathForbidden as error:
            raise RequestError([Problem("uri", error.reason)]) from error
        except LauncherError as error:
            raise RequestError([Problem("uri", f"cannot be used: {error}")]) from error
        put = service.connections.put(caller.tenant, asked.name, uri, asked.description)
        status_code = 201 if put.created_at == put.updated_at else 200
        return answer(_connection_object(put), status_code, {"Location": f"/api/v1/connections/{put.name}"})

    return once(act)


@router.get(
    "/connections",
    tags=["connections"],
    summary="List connections",
    response_model=models.ConnectionPage,
    responses=documented.refusals("invalid-request"),
)
def list_connections(request: Request, caller: Viewer, limit: Limit = 50, cursor: Cursor = None) -> Response:
    """By name."""
    service: Service = request.app.state.service
    found = service.connections.page(caller.tenant, limit + 1, read_name_cursor("c", cursor))
    listed, following = page(found, limit, _connection_object, lambda each: name_cursor("c", each.name))
    return answer({"connections": listed, "next_cursor": following})


@router.get(
    "/connections/{name}",
    tags=["connections"],
    summary="A connection",
    response_model=models.ConnectionAnswer,
    responses=documented.refusals("not-found", "invalid-request"),
)
def show_connection(request: Request, caller: Viewer, name: str) -> Response:
    """Without its secrets."""
    return answer(_connection_object(own_connection(request.app.state.service, caller, name)))


@router.delete(
    "/connections/{name}",
    status_code=204,
    tags=["connections"],
    summary="Forget a connection",
    response_class=Response,
    responses=documented.refusals("not-found", "conflict", "invalid-request"),
)
def delete_connection(request: Request, caller: Submitter, name: str) -> Response:
    """Unless a job that is not over, or a schedule, names it."""
    request.app.state.service.connections.delete(caller.tenant, checked_connection_name(name))
    return Response(status_code=204)


def _confined(service: Service, caller: Caller, asked: ModelRequest) -> tuple[ModelSpec, str | None]:
    """The model and the folder that it is imported from, where the caller may have them."""
    from dataclasses import replace

    confinement = service.reach.confinement(caller.tenant)
    home = os.path.realpath(service.home.path)

    def confined(field: str, path: str) -> str:
        real = confinement.confined(field, path, globs=False)
        if f"{real}{os.sep}".startswith(home + os.sep):
            raise PathForbidden(field, path, "is not for models; name another folder")
        return real

    if not asked.model.runs_code:
        uri = confined("uri", asked.model.uri)
        if not os.path.isfile(uri):
            # Better now than when a job, or the next run of a schedule, needs it.
            line = f"{asked.model.uri!r} is no file that the service can read; put it there first, or name another"
            raise RequestError([Problem("uri", line)])
        return replace(asked.model, uri=uri), None
    return asked.model, None if asked.import_path is None else confined("import_path", asked.import_path)


def _model_object(model: Model) -> dict[str, Any]:
    spec = model.spec
    return {
        "model_id": model.model_id,
        "version": model.version,
        "uri": spec.uri,
        "flavor": spec.flavor,
        "features": _listed(spec.features),
        "nulls": spec.nulls,
        "outputs": _listed(spec.outputs),
        "import_path": model.working_dir,
        "description": model.description,
        "created_at": stamp(model.created_at),
    }


def _listed(names: Features | Outputs) -> Any:
    """Names as JSON has them."""
    if isinstance(names, Mapping):
        return {name: each if isinstance(each, str) else list(each) for name, each in names.items()}
    return None if names is None else list(names)


def _connection_object(connection: NamedConnection) -> dict[str, Any]:
    return {
        "name": connection.name,
        "uri": Connection(connection.uri).describe(),
        "description": connection.description,
        "created_at": stamp(connection.created_at),
        "updated_at": stamp(connection.updated_at),
    }
