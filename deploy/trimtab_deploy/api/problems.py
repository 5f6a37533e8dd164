"""Every error of the API is a Problem (RFC 9457), whose code decides the status."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from trimtab_protocol.api import Problem
from trimtab_protocol.errors import ErrorCode, TrimtabError

STATUS_BY_CODE = {
    ErrorCode.PROTOCOL_CONFLICT: 409,
    ErrorCode.PROTOCOL_UNKNOWN: 404,
    ErrorCode.PROTOCOL_UNAUTHORIZED: 401,
    ErrorCode.TRUST_PAYLOAD_LENGTH: 413,
}
STATUS_BY_BRANCH = {"transient": 503, "storage": 500}
CODE_BY_STATUS = {401: ErrorCode.PROTOCOL_UNAUTHORIZED, 404: ErrorCode.PROTOCOL_UNKNOWN}
TITLES = {
    400: "Bad request",
    401: "Not authorized",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Too large",
    422: "Not what was expected",
    500: "Storage failed",
    503: "Try again later",
}


def status_of(code: ErrorCode) -> int:
    """The HTTP status of an error code."""
    branch = code.value.split(".", 1)[0]
    return STATUS_BY_CODE.get(code, STATUS_BY_BRANCH.get(branch, 400))


def problem_response(code: ErrorCode, detail: str, status: int | None = None) -> Response:
    """An error as it is sent."""
    found = status_of(code) if status is None else status
    problem = Problem(title=TITLES.get(found, "Error"), status=found, detail=detail, code=code)
    headers = {"WWW-Authenticate": "Bearer"} if found == 401 else None
    return Response(
        problem.model_dump_json(),
        status_code=found,
        media_type="application/problem+json",
        headers=headers,
    )


def install_handlers(app: FastAPI) -> None:
    """Turn every exception that a route may raise into a Problem."""

    @app.exception_handler(TrimtabError)
    async def ours(_: Request, error: TrimtabError) -> Response:
        return problem_response(error.code, error.message)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        rows = [
            f"{'.'.join(str(part) for part in row['loc'][1:]) or row['loc'][0]}: {row['msg']}"
            for row in error.errors()[:3]
        ]
        return problem_response(ErrorCode.PROTOCOL_MALFORMED, "; ".join(rows), 422)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        code = CODE_BY_STATUS.get(error.status_code, ErrorCode.PROTOCOL_MALFORMED)
        return problem_response(code, str(error.detail), error.status_code)
