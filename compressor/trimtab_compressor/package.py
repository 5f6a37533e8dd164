"""Make an artifact of a model file: read it, run it, describe it, sign it.

Nothing is packaged that its runtime has not loaded and run here.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from trimtab_compressor.arrays import AnyArray, digest_file
from trimtab_compressor.golden import make_golden
from trimtab_compressor.runtimes.port import Arrays, Kernels, Runner, fit_samples
from trimtab_compressor.runtimes.table import format_of, open_model
from trimtab_protocol.base import describe_validation_error, parse_wire
from trimtab_protocol.budget import Budget
from trimtab_protocol.errors import ConfigError, ErrorCode, ModelError, ProtocolError
from trimtab_protocol.manifest import (
    RUNTIME_FOR,
    Golden,
    Lineage,
    Manifest,
    ModelFormat,
    PassRecord,
    Quality,
    Requirements,
    SignedManifest,
    describe_payload,
)
from trimtab_protocol.signing import read_manifest, sign_manifest


@dataclass(frozen=True)
class PackagedArtifact:
    """A signed manifest and the file that it describes."""

    signed: SignedManifest
    model_path: Path

    @property
    def manifest(self) -> Manifest:
        """The manifest as it was signed."""
        return read_manifest(self.signed)


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a file comes from, as far as it is known; all of it ends up in the lineage."""

    passes: tuple[PassRecord, ...] = ()
    seed: int | None = None
    data_sha256: Mapping[str, str] | None = None
    tools: Mapping[str, str] | None = None
    created_at: float | None = None


def package_model(
    model_path: Path,
    *,
    name: str,
    version: int,
    recipe: str,
    private_key: bytes,
    samples: Arrays | AnyArray,
    quality: Quality | None = None,
    base_sha256: str | None = None,
    budgets: Mapping[str, Budget] | None = None,
    golden: Golden | None = None,
    provenance: Provenance | None = None,
    device_classes: tuple[str, ...] = (),
) -> PackagedArtifact:
    """Describe and sign one model file.

    Args:
        model_path: .onnx or .tflite; stays where it is.
        name: Of the artifact.
        version: Of the artifact, 1 or more.
        recipe: What made it; free text for a model from elsewhere.
        private_key: 32 bytes, as `keys new` wrote them.
        samples: Real inputs for the golden vectors, (n, *input shape); by input name if the model
            has several.
        quality: From `evaluate`; None if it was not judged.
        base_sha256: Payload of the base model, if this was made from one.
        budgets: By device class, "*" for any.
        golden: Vectors to use instead of those made from `samples`.
        provenance: Passes, seed, data and tools.
        device_classes: Where it may run; empty for anywhere.

    Raises:
        ConfigError: A name, version or sample does not fit.
        ModelError: The file does not load or run.
    """
    model_format = format_of(model_path)
    payload = model_path.read_bytes()
    runner = open_model(model_path, Kernels.EXACT)
    matched = fit_samples(runner.io, samples, what="samples")
    _check_default_kernels(model_path, matched)
    origin = provenance or Provenance()
    try:
        manifest = Manifest(
            name=name,
            version=version,
            io=runner.io,
            payload=describe_payload(payload, model_format),
            lineage=Lineage(
                base_sha256=base_sha256,
                recipe=recipe,
                passes=origin.passes,
                seed=origin.seed,
                data_sha256=dict(origin.data_sha256 or {}),
                tools=dict(origin.tools or {"runtime": runner.version()}),
                created_at=origin.created_at,
            ),
            quality=quality,
            requirements=Requirements(
                runtime=RUNTIME_FOR[model_format], device_classes=device_classes
            ),
            golden=golden or _golden(runner, matched, model_path),
            budgets=dict(budgets or {}),
        )
        return PackagedArtifact(sign_manifest(manifest, private_key), model_path)
    except ValidationError as error:
        raise ConfigError(
            f"{name}@{version} cannot be described: {describe_validation_error(error)}"
        ) from error


def _check_default_kernels(path: Path, samples: Arrays) -> None:
    """Run one sample as a device would, so that a file that crashes there is found here."""
    runner = open_model(path, Kernels.DEFAULT)
    runner.run_once({name: rows[:1] for name, rows in samples.items()})


def _golden(runner: Runner, samples: Arrays, path: Path) -> Golden:
    return make_golden(runner, samples, is_quantized=holds_integers(path))


def holds_integers(path: Path) -> bool:
    """Whether a model file has 8-bit tensors, so that rounding may differ between CPUs."""
    if format_of(path) is ModelFormat.ONNX:
        from trimtab_compressor.passes.onnx_files import is_quantized  # noqa: PLC0415 - heavy

        return is_quantized(path)
    from trimtab_compressor.passes.tflite_files import (  # noqa: PLC0415 - heavy
        is_quantized as is_tflite_quantized,
    )

    return is_tflite_quantized(path)


def write_artifact(artifact: PackagedArtifact, folder: Path) -> tuple[Path, Path]:
    """Write `{name}-{version}.{format}` and `{name}-{version}.manifest.json`; give both paths.

    Raises:
        ConfigError: The folder cannot be written.
    """
    manifest = artifact.manifest
    stem = f"{manifest.name}-{manifest.version}"
    model_path = folder / f"{stem}.{manifest.payload.format.value}"
    manifest_path = folder / f"{stem}.manifest.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if model_path.resolve() != artifact.model_path.resolve():
            shutil.copyfile(artifact.model_path, model_path)
        manifest_path.write_text(artifact.signed.model_dump_json(indent=2))
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be written ({error.strerror}); give another with --out"
        ) from error
    return model_path, manifest_path


def read_artifact(manifest_path: Path) -> PackagedArtifact:
    """Read what `write_artifact` wrote; the model file is expected beside the manifest.

    Raises:
        ConfigError: A file is missing, or the first one is not a signed manifest.
        ModelError: The model file is not the one that was signed.
    """
    try:
        signed = parse_wire(SignedManifest, manifest_path.read_bytes(), what="signed manifest")
        manifest = read_manifest(signed)
    except OSError as error:
        raise ConfigError(
            f"{manifest_path} cannot be read ({error.strerror})", code=ErrorCode.CONFIG_MISSING
        ) from error
    except ProtocolError as error:
        raise ConfigError(f"{manifest_path}: {error.message}") from error
    stem = f"{manifest.name}-{manifest.version}"
    model_path = manifest_path.with_name(f"{stem}.{manifest.payload.format.value}")
    format_of(model_path)
    if digest_file(model_path) != manifest.payload.sha256:
        raise ModelError(
            f"{model_path} is not the file that {manifest_path} describes; package it again",
            code=ErrorCode.MODEL_UNREADABLE,
        )
    return PackagedArtifact(signed, model_path)
