"""`/docs`: the API to look at and to try in a browser; all of it comes from here, for machines without the internet."""

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

PATH = "/docs"
_FILES = f"{PATH}/files"
# Kept over a reload of the page: a key is pasted once. Requests show how long they took.
_PARAMETERS = {"persistAuthorization": True, "displayRequestDuration": True, "filter": True}


def install(app: FastAPI) -> None:
    """Add the page, and Swagger UI's files as the package `fastapi_swagger` has them."""
    app.mount(_FILES, StaticFiles(packages=[("fastapi_swagger", "resources")]))

    @app.get(PATH, include_in_schema=False)
    async def show_docs(request: Request) -> HTMLResponse:
        # Behind a proxy that serves this under a path of its own.
        root = request.scope.get("root_path", "").rstrip("/")
        files = f"{root}{_FILES}"
        return get_swagger_ui_html(
            openapi_url=f"{root}{app.openapi_url}",
            title=f"{app.title} API",
            swagger_js_url=f"{files}/swagger-ui-bundle.js",
            swagger_css_url=f"{files}/swagger-ui.css",
            swagger_favicon_url=f"{files}/favicon-32x32.png",
            swagger_ui_parameters=_PARAMETERS,
        )
