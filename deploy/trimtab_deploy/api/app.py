"""The application: routes, the token, problems."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request
from fastapi.responses import Response

from trimtab_deploy.api import artifacts, fleet, work
from trimtab_deploy.api.parts import Parts
from trimtab_deploy.api.problems import install_handlers, problem_response
from trimtab_protocol.api import API_PREFIX
from trimtab_protocol.errors import ErrorCode

OPEN_PATHS = ("/healthz",)


def make_app(parts: Parts) -> FastAPI:
    """Build the application over its parts."""
    app = FastAPI(
        title="Trimtab control plane",
        version=parts.facts.version,
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{API_PREFIX}/openapi.json",
    )
    install_handlers(app)
    for module in (artifacts, fleet, work):
        app.include_router(module.make_router(parts), prefix=API_PREFIX)

    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.middleware("http")
    async def check_token(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        if request.url.path in OPEN_PATHS or _is_authorized(request, parts.token):
            return await call_next(request)
        return problem_response(
            ErrorCode.PROTOCOL_UNAUTHORIZED,
            "send `Authorization: Bearer TOKEN` with the token in admin.token of the data folder",
        )

    return app


def _is_authorized(request: Request, token: str) -> bool:
    sent = request.headers.get("authorization", "")
    return hmac.compare_digest(sent.encode(), f"Bearer {token}".encode())
