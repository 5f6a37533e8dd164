"""Payloads and artifacts over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from hashlib import sha256 as hash_sha256

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from trimtab_deploy.api.parts import Parts
from trimtab_deploy.payloads import PayloadStore
from trimtab_deploy.store import artifacts
from trimtab_protocol.api import Artifact
from trimtab_protocol.errors import ErrorCode, ProtocolError, TransientError, TrustError
from trimtab_protocol.manifest import Manifest, SignedManifest
from trimtab_protocol.signing import read_manifest, verify_manifest


def make_router(parts: Parts) -> APIRouter:
    """The routes below `/payloads` and `/artifacts`."""
    router = APIRouter()

    @router.put("/payloads/{sha256}", status_code=201, responses={200: {}})
    async def put_payload(sha256: str, request: Request, response: Response) -> dict[str, str]:
        """Store a model file under the SHA-256 of its content; 200 if it is there already."""
        if not await parts.payloads.put(sha256, _pieces(request)):
            response.status_code = 200
        return {"sha256": sha256}

    @router.post("/artifacts", status_code=201, responses={200: {}})
    async def post_artifact(signed: SignedManifest, response: Response) -> Artifact:
        """Register an artifact whose payload is there; 200 if exactly this one is known."""
        trusted = parts.trusted_keys
        manifest = verify_manifest(signed, trusted) if trusted else read_manifest(signed)
        await asyncio.to_thread(check_payload, manifest, parts.payloads)
        now = parts.clock()
        artifact, is_new = await parts.database.run(
            lambda row: artifacts.add(row, manifest, signed, now)
        )
        if not is_new:
            response.status_code = 200
        return artifact

    @router.get("/artifacts")
    async def get_artifacts() -> list[Artifact]:
        """Every artifact, by name and version."""
        return await parts.database.run(artifacts.get_all)

    @router.get("/artifacts/{name}/{version}")
    async def get_artifact(name: str, version: int) -> Artifact:
        """One artifact."""
        return await parts.database.run(lambda row: artifacts.get(row, name, version))

    return router


def check_payload(manifest: Manifest, payloads: PayloadStore) -> None:
    """Hold the stored payload against what the manifest says of it, chunk by chunk.

    A manifest whose chunk digests are wrong would make every device ask for ever.

    Raises:
        ProtocolError: `protocol.unknown`: the payload is not there.
        TrustError: Length or a chunk's digest is another.
    """
    wanted = manifest.payload
    found_bytes = payloads.length_bytes(wanted.sha256)
    reader = payloads.open_chunks(wanted.sha256)
    if found_bytes is None or reader is None:
        raise ProtocolError(
            f"the payload {wanted.sha256} of {manifest.ref()} is not here: first "
            f"PUT /api/v1/payloads/{wanted.sha256}, then register the artifact",
            code=ErrorCode.PROTOCOL_UNKNOWN,
        )
    with closing(reader):
        if found_bytes != wanted.length_bytes:
            raise TrustError(
                f"{manifest.ref()} says {wanted.length_bytes} bytes, its payload has {found_bytes}",
                code=ErrorCode.TRUST_PAYLOAD_DIGEST,
            )
        for index, digest in enumerate(wanted.chunk_digests()):
            if hash_sha256(reader.read(index, wanted.chunk_bytes)).digest() != digest:
                raise TrustError(
                    f"chunk {index} of the payload has another digest than {manifest.ref()} says",
                    code=ErrorCode.TRUST_CHUNK_DIGEST,
                )


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    try:
        async for piece in request.stream():
            if piece:
                yield piece
    except ClientDisconnect as error:
        raise TransientError("the upload was cut off") from error
