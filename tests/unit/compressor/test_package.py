"""Packaging: what is signed is what was read and run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support.compressor_rig import write_dense_onnx
from support.factories import OWNER_KEY, a_budget, trusting
from trimtab_compressor.arrays import AnyArray
from trimtab_compressor.golden import unpack_array
from trimtab_compressor.package import (
    PackagedArtifact,
    Provenance,
    package_model,
    read_artifact,
    write_artifact,
)
from trimtab_compressor.runtimes.port import Kernels, fit_samples, run_all
from trimtab_compressor.runtimes.table import open_model
from trimtab_protocol.errors import ConfigError, ErrorCode, ModelError
from trimtab_protocol.manifest import GoldenVector, IoSpec, ModelFormat, TensorSpec
from trimtab_protocol.signing import verify_manifest

RANDOM = np.random.default_rng(0)
WEIGHTS = RANDOM.normal(size=(6, 3)).astype(np.float32)
SAMPLES = RANDOM.normal(size=(10, 6)).astype(np.float32) * 5


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_dense_onnx(tmp_path / "dense.onnx", WEIGHTS)


def pack(model: Path, **changes: object) -> PackagedArtifact:
    given: dict[str, object] = {
        "name": "dense",
        "version": 3,
        "recipe": "fp32",
        "private_key": OWNER_KEY,
        "samples": SAMPLES,
    }
    return package_model(model, **{**given, **changes})  # type: ignore[arg-type]


def test_the_manifest_is_signed_and_says_what_the_file_is(model: Path) -> None:
    artifact = pack(model, budgets={"*": a_budget(p90_ms=3.0)}, device_classes=("pi4",))
    manifest = verify_manifest(artifact.signed, trusting(OWNER_KEY))
    assert manifest.io.inputs == (TensorSpec(name="x", dtype="float32", shape=(None, 6)),)
    assert manifest.io.outputs == (TensorSpec(name="y", dtype="float32", shape=(None, 3)),)
    assert manifest.payload.format is ModelFormat.ONNX
    assert manifest.payload.length_bytes == model.stat().st_size
    assert manifest.requirements.device_classes == ("pi4",)
    assert manifest.budget_for("anything") == a_budget(p90_ms=3.0)
    vector = manifest.golden.vectors[0]
    expected = unpack_array(vector.inputs["x"]) @ WEIGHTS
    assert np.allclose(unpack_array(vector.outputs["y"]), expected, atol=1e-5)


def test_an_artifact_survives_its_folder(model: Path, tmp_path: Path) -> None:
    artifact = pack(model, provenance=Provenance(seed=7, tools={"hand": "1"}, created_at=5.0))
    model_path, manifest_path = write_artifact(artifact, tmp_path / "out")
    assert model_path.name == "dense-3.onnx"
    assert manifest_path.name == "dense-3.manifest.json"
    again = read_artifact(manifest_path)
    assert again.manifest == artifact.manifest
    assert again.manifest.lineage.tools == {"hand": "1"}
    assert write_artifact(again, tmp_path / "out") == (model_path, manifest_path)


def test_a_changed_model_file_is_not_the_artifact(model: Path, tmp_path: Path) -> None:
    model_path, manifest_path = write_artifact(pack(model), tmp_path / "out")
    model_path.write_bytes(model_path.read_bytes() + b"x")
    with pytest.raises(ModelError, match="package it again"):
        read_artifact(manifest_path)


def test_given_golden_vectors_must_name_the_models_tensors(model: Path) -> None:
    good = pack(model).manifest.golden
    assert pack(model, golden=good).manifest.golden == good
    assert good.vectors[0].inputs.keys() == {"x"}
    renamed = GoldenVector(
        inputs={"z": good.vectors[0].inputs["x"]}, outputs=good.vectors[0].outputs
    )
    with pytest.raises(ConfigError, match="golden vectors name"):
        pack(model, golden=good.model_copy(update={"vectors": (renamed,)}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "Not A Name"}, "name"),
        ({"version": 0}, "version"),
        ({"samples": SAMPLES[:, :5]}, "have shape \\[5\\], the model takes \\[6\\]"),
        ({"samples": SAMPLES[:0]}, "at least one"),
        ({"samples": (SAMPLES * 10).astype(np.uint8)}, "are uint8, the model takes float32"),
        ({"samples": np.full_like(SAMPLES, np.nan)}, "NaN"),
        ({"samples": {"z": SAMPLES}}, "named \\['z'\\], the model's inputs \\['x'\\]"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_signed(
    model: Path, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        pack(model, **changes)


def test_doubles_are_taken_for_a_float_model(model: Path) -> None:
    assert pack(model, samples=SAMPLES.astype(np.float64)).manifest.version == 3


@pytest.mark.parametrize("suffix", [".onnx", ".tflite"])
@pytest.mark.parametrize("content", [b"", b"this is no model" * 8])
def test_a_file_that_is_no_model_is_unreadable(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"junk{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        pack(path)
    assert caught.value.code is ErrorCode.MODEL_UNREADABLE


def test_a_missing_file_and_an_unknown_suffix_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        pack(tmp_path / "none.onnx")
    (tmp_path / "model.pt").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"\.onnx or \.tflite"):
        pack(tmp_path / "model.pt")


def test_a_folder_that_cannot_be_written_and_a_manifest_that_is_none(
    model: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("{}")
    with pytest.raises(ConfigError, match="--out"):
        write_artifact(pack(model), tmp_path / "file" / "out")
    with pytest.raises(ConfigError, match="signed manifest"):
        read_artifact(tmp_path / "file")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_artifact(tmp_path / "none.json")


def test_many_samples_run_in_batches_and_come_back_in_order(model: Path) -> None:
    many = RANDOM.normal(size=(601, 6)).astype(np.float32)
    runner = open_model(model, Kernels.DEFAULT)
    found = run_all(runner, fit_samples(runner.io, many, what="samples"))["y"]
    assert np.allclose(found, many @ WEIGHTS, atol=1e-5)


def test_a_model_of_two_inputs_takes_one_array_per_name() -> None:
    io = IoSpec(
        inputs=(
            TensorSpec(name="a", dtype="float32", shape=(None, 2)),
            TensorSpec(name="b", dtype="int8", shape=(None, None)),
        ),
        outputs=(TensorSpec(name="y", dtype="float32", shape=(None,)),),
    )
    rows: dict[str, AnyArray] = {"b": np.zeros((3, 9), np.int8), "a": np.zeros((3, 2), np.float32)}
    assert list(fit_samples(io, rows, what="samples")) == ["a", "b"]
    with pytest.raises(ConfigError, match="same number"):
        fit_samples(io, {**rows, "a": rows["a"][:2]}, what="samples")
