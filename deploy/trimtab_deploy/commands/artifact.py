"""`trimtab-deploy artifact …`."""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

from trimtab_deploy.commands.connection import connected, read_artifact_name
from trimtab_deploy.commands.output import print_fields, print_json, print_table, show_time
from trimtab_protocol.api import Artifact
from trimtab_protocol.base import parse_wire
from trimtab_protocol.errors import ConfigError, ErrorCode, TrustError
from trimtab_protocol.manifest import Manifest, SignedManifest
from trimtab_protocol.signing import read_manifest

SUFFIX = ".manifest.json"


def push(chosen: argparse.Namespace) -> int:
    """Upload a model file and register its manifest."""
    signed = _read_signed(chosen.manifest)
    manifest = read_manifest(signed)
    payload = _find_payload(chosen.manifest, manifest)
    with connected(chosen) as client:
        client.put_payload(manifest.payload.sha256, payload)
        artifact = client.push_artifact(signed)
    sys.stdout.write(f"{artifact.ref} {manifest.payload.length_bytes} bytes\n")
    return 0


def show_all(chosen: argparse.Namespace) -> int:
    """All artifacts."""
    with connected(chosen) as client:
        found = client.artifacts()
    if chosen.json:
        print_json(found)
        return 0
    columns = ("ARTIFACT", "FORMAT", "BYTES", "RECIPE", "ACCURACY", "PUSHED")
    print_table(columns, [_row(row) for row in found])
    return 0


def show(chosen: argparse.Namespace) -> int:
    """One artifact."""
    with connected(chosen) as client:
        found = client.artifact(*read_artifact_name(chosen.artifact))
    if chosen.json:
        print_json(found)
        return 0
    manifest = read_manifest(found.signed)
    passes = " → ".join(row.name for row in manifest.lineage.passes)
    print_fields(
        [
            ("artifact", str(found.ref)),
            ("payload", f"{found.ref.sha256} ({manifest.payload.length_bytes} bytes)"),
            ("format", manifest.payload.format.value),
            ("recipe", manifest.lineage.recipe),
            ("passes", passes),
            ("accuracy", _accuracy(manifest)),
            ("classes", ", ".join(manifest.requirements.device_classes) or "any"),
            ("signed by", ", ".join(row.key_id for row in found.signed.signatures)),
            ("pushed", show_time(found.created_at)),
        ]
    )
    return 0


def _row(artifact: Artifact) -> tuple[str, ...]:
    manifest = read_manifest(artifact.signed)
    return (
        str(artifact.ref),
        manifest.payload.format.value,
        str(manifest.payload.length_bytes),
        manifest.lineage.recipe,
        _accuracy(manifest) or "-",
        show_time(artifact.created_at),
    )


def _accuracy(manifest: Manifest) -> str:
    quality = manifest.quality
    if quality is None:
        return ""
    own = quality.exact if quality.exact is not None else quality.on_host
    return "" if own is None else f"{own:.4f} {quality.metric}"


def _read_signed(path: Path) -> SignedManifest:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}", code=ErrorCode.CONFIG_MISSING
        ) from error
    return parse_wire(SignedManifest, raw, what=f"signed manifest {path}")


def _find_payload(path: Path, manifest: Manifest) -> Path:
    if not path.name.endswith(SUFFIX):
        raise ConfigError(f"a manifest is called X{SUFFIX}, not {path.name}")
    stem = path.name.removesuffix(SUFFIX)
    payload = path.with_name(f"{stem}.{manifest.payload.format.value}")
    try:
        with payload.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(
            f"the model file of {path.name} is expected at {payload}: {error.strerror}",
            code=ErrorCode.CONFIG_MISSING,
        ) from error
    if found != manifest.payload.sha256:
        raise TrustError(
            f"{payload} has SHA-256 {found}, its manifest says {manifest.payload.sha256}: they do "
            "not belong together; export again",
            code=ErrorCode.TRUST_PAYLOAD_DIGEST,
        )
    return payload
