"""Bad input: one clear error line, exit code 2, no traceback, and nothing is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.artifacts import TEST_PRIVATE_KEY
from support.brokers import free_port
from support.tiny_models import make_onnx
from trimtab_protocol.api import DeviceCredentials
from trimtab_protocol.signing import encode_key

MODULES = {
    "agent": "trimtab_agent.cli",
    "deploy": "trimtab_deploy.cli",
    "compressor": "trimtab_compressor.cli",
}

BAD_CALIBRATION = """
import numpy as np
from torch import nn
from trimtab_compressor.task import Samples, Task
x, y = np.zeros((10, 1, 8, 8), np.float32), np.zeros(10, np.int64)
TASK = Task(name="t", build_model=lambda width=1.0: nn.Flatten(), input_shape=(1, 8, 8), classes=2,
            train=Samples(x, y), test=Samples(x, y), calibration=np.zeros((5, 3, 8, 8), np.float32))
"""


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", MODULES[program], *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def assert_refused(done: subprocess.CompletedProcess[str], code: str, *words: str) -> None:
    assert done.returncode == 2, (done.returncode, done.stderr)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert errors[0].startswith(f"error: [{code}]"), errors
    for word in words:
        assert word in errors[0], (word, errors[0])


@pytest.fixture
def key(tmp_path: Path) -> str:
    path = tmp_path / "owner.key"
    path.write_text(encode_key(TEST_PRIVATE_KEY))
    return str(path)


def write_agent(folder: Path, *, port: int, extra: str = "") -> Path:
    credentials = DeviceCredentials(
        device="d", site="s", mqtt_host="127.0.0.1", mqtt_port=port, username="d", password="p"
    )
    (folder / "credentials.json").write_text(credentials.model_dump_json())
    path = folder / "agent.toml"
    path.write_text(
        f'state_dir = "state"\ncredentials = "credentials.json"\n'
        f'trusted_keys = ["{encode_key(bytes(32))}"]\n{extra}'
    )
    return path


def test_an_agent_without_its_configuration_says_which_file_is_missing(tmp_path: Path) -> None:
    missing = tmp_path / "nothing.toml"
    assert_refused(run("agent", "run", "--config", str(missing)), "config.missing", str(missing))


def test_an_agent_with_a_misspelt_key_names_it(tmp_path: Path) -> None:
    path = write_agent(tmp_path, port=1, extra="[measure]\ntreads = 4\n")
    done = run("agent", "run", "--config", str(path))
    assert_refused(done, "config.invalid", str(path), "measure.treads")


def test_an_agent_whose_broker_is_unreachable_says_so_after_trying(tmp_path: Path) -> None:
    port = free_port()
    path = write_agent(tmp_path, port=port, extra="[mqtt]\nfirst_connect_timeout_s = 10\n")
    done = run("agent", "run", "--config", str(path))
    assert_refused(done, "transient.broker", f"127.0.0.1:{port}")
    assert done.stderr.count("not connected") >= 2, "it was tried more than once"


def test_a_model_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none.onnx"
    assert_refused(run("agent", "measure", str(path)), "model.unreadable", str(path))


def test_a_control_plane_with_a_malformed_configuration_names_file_and_key(tmp_path: Path) -> None:
    path = tmp_path / "deploy.toml"
    path.write_text("http_prot = 1\n")
    done = run("deploy", "serve", "--data", str(tmp_path / "data"), "--config", str(path))
    assert_refused(done, "config.invalid", str(path), "http_prot")


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        ("deploy", ("device", "list")),
        ("compressor", ("push", "MANIFEST")),
    ],
)
def test_an_unreachable_control_plane_is_retried_and_then_said(
    tmp_path: Path, key: str, program: str, arguments: tuple[str, ...]
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    (tmp_path / "m.onnx").write_bytes(make_onnx())
    import numpy  # noqa: PLC0415

    numpy.save(tmp_path / "x.npy", numpy.ones((4, 1, 4), numpy.float32).reshape(4, 4))
    packed = run(
        "compressor", "package", str(tmp_path / "m.onnx"), "--name", "m", "--version", "1",
        "--key", key, "--samples", str(tmp_path / "x.npy"), "--out", str(tmp_path),
    )  # fmt: skip
    assert packed.returncode == 0, packed.stderr
    manifest = str(tmp_path / "m-1.manifest.json")
    words = tuple(manifest if word == "MANIFEST" else word for word in arguments)
    done = run(program, *words, "--url", url, "--token", "t")
    assert_refused(done, "transient.control_plane", url)
    assert len(done.stderr.splitlines()) >= 3, "each retry is said"


def test_an_unknown_recipe_names_the_near_ones(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text("TASK = None")
    done = run(
        "compressor", "run", str(tmp_path / "task.py"), "--recipe", "static_w8a8_asymm",
        "--out", str(tmp_path / "out"),
    )  # fmt: skip
    assert_refused(done, "config.missing", "static_w8a8_asym")


def test_a_calibration_of_the_wrong_shape_names_both_shapes(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(BAD_CALIBRATION)
    done = run("compressor", "run", str(tmp_path / "task.py"), "--out", str(tmp_path / "out"))
    assert_refused(done, "config.invalid", "calibration", "3", "8")


def test_an_unreadable_model_cannot_be_packaged(tmp_path: Path, key: str) -> None:
    (tmp_path / "m.onnx").write_bytes(b"this is no model")
    (tmp_path / "x.npy").write_bytes(b"")
    done = run(
        "compressor", "package", str(tmp_path / "m.onnx"), "--name", "m", "--version", "1",
        "--key", key, "--samples", str(tmp_path / "x.npy"), "--out", str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
