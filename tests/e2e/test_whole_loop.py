"""The real programs together: compress, measure, choose, roll out, refuse, go back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from support.artifacts import TEST_PRIVATE_KEY
from support.control_plane import cli
from support.fleet import Fleet, wait_for
from support.tiny_models import make_real_artifact
from trimtab_protocol.api import Trial
from trimtab_protocol.errors import ErrorCode
from trimtab_protocol.manifest import SignedManifest
from trimtab_protocol.rollout import Rollout, RolloutState
from trimtab_protocol.signing import encode_key

QUICK_TRIAL = (
    "--processes",
    "2",
    "--min-runs",
    "100",
    "--min-steady-s",
    "0.05",
    "--warm-up-s",
    "0.05",
)
QUICK = tuple(word.replace("--", "--probe-") for word in QUICK_TRIAL)

TASK = """
import numpy as np
from torch import nn
from trimtab_compressor.task import Samples, Task, Training

def build_model(width=1.0):
    n = max(8, round(16 * width))
    return nn.Sequential(nn.Conv2d(1, n, 3), nn.ReLU(), nn.Flatten(), nn.Linear(n * 36, 32), nn.ReLU(), nn.Linear(32, 2))

rng = np.random.default_rng(0)
labels = rng.integers(0, 2, 600)
inputs = rng.normal(0, 0.3, (600, 1, 8, 8)).astype(np.float32)
inputs[labels == 1, :, 2:6, 2:6] += 1.0
TASK = Task(
    name="squares", build_model=build_model, input_shape=(1, 8, 8), classes=2,
    train=Samples(inputs[:500], labels[:500]), test=Samples(inputs[500:], labels[500:]),
    calibration=inputs[:100], training=Training(epochs=2, distill_epochs=1, batch=50, seed=0),
)
"""


def roll_out(fleet: Fleet, version: int, *options: str, name: str = "digits") -> Rollout:
    """Create a rollout over both classes in two stages and wait for its end."""
    done = cli(
        "rollout", "create", f"{name}@{version}", "--data", str(fleet.plane.folder),
        "--stage", "count=1", "--stage", "ratio=1.0", "--probation-s", "0.5", *QUICK,
        "--wait", "--json", *options, timeout_s=120,
    )  # fmt: skip
    assert done.returncode in (0, 3), done.stderr
    return Rollout.model_validate_json(done.stdout)


def push(fleet: Fleet, artifact: tuple[SignedManifest, bytes]) -> None:
    fleet.plane.push(*artifact)


def test_a_good_artifact_is_committed_on_every_device_in_two_stages(fleet: Fleet) -> None:
    push(fleet, make_real_artifact(1, layers=8))
    rollout = roll_out(fleet, 1)
    assert rollout.state is RolloutState.COMMITTED, rollout.reason
    assert len(rollout.verdicts) == 2
    assert {row.stage for row in rollout.devices} == {0, 1}
    assert fleet.active("device-a") == fleet.active("device-b") == "digits@1"


def test_a_faster_one_replaces_it_and_bad_ones_are_refused_with_nothing_changed(
    fleet: Fleet,
) -> None:
    push(fleet, make_real_artifact(1, layers=60))
    assert roll_out(fleet, 1).state is RolloutState.COMMITTED
    push(fleet, make_real_artifact(2, layers=8))
    better = roll_out(fleet, 2)
    assert better.state is RolloutState.COMMITTED, better.reason
    for row in better.devices:
        assert row.comparison is not None, "each device compared it with its own incumbent"
        assert (row.comparison.p90_ratio.value or 9) < 1
    push(fleet, make_real_artifact(3, layers=8, golden_scale=3.0))
    push(fleet, make_real_artifact(4, layers=120))
    for version, code in ((3, ErrorCode.MODEL_GOLDEN), (4, ErrorCode.REJECTED_SLOWER)):
        refused = roll_out(fleet, version)
        assert refused.state is RolloutState.REFUSED, refused.reason
        assert code in {row.error_code for row in refused.devices}
        wait_for("both devices on the good one", lambda: both_on(fleet, "digits@2"))
        untouched = [row for row in refused.devices if row.stage == 1]
        assert all(row.state is None for row in untouched), "the second stage never began"


def both_on(fleet: Fleet, artifact: str) -> bool:
    return fleet.active("device-a") == fleet.active("device-b") == artifact


def test_a_trial_on_a_class_is_measured_there(fleet: Fleet) -> None:
    push(fleet, make_real_artifact(1))
    done = cli(
        "trial", "create", "digits@1", "--class", "class-b", "--data", str(fleet.plane.folder),
        "--wait", "--json", *QUICK_TRIAL, timeout_s=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    trial = Trial.model_validate_json(done.stdout)
    assert trial.device == "device-b"
    assert trial.measurement is not None
    assert trial.measurement.condition.device_class == "class-b"
    assert fleet.active("device-b") is None


def test_the_control_plane_killed_in_mid_rollout_goes_on_where_it_was(fleet: Fleet) -> None:
    push(fleet, make_real_artifact(1, padding_bytes=3_000_000))
    done = cli(
        "rollout", "create", "digits@1", "--data", str(fleet.plane.folder), "--probation-s", "0.5",
        *QUICK, "--json",
    )  # fmt: skip
    rollout_id = json.loads(done.stdout)["rollout_id"]
    fleet.plane.kill()
    port = str(fleet.plane.facts.mqtt_port)
    fleet.plane.start("--mqtt-port", port)
    wait_for(
        "the rollout to end",
        lambda: fleet.plane.client().rollout(rollout_id).state is RolloutState.COMMITTED,
        timeout_s=90,
    )
    assert both_on(fleet, "digits@1")


def fit(fleet: Fleet, folder: Path, *budget: str) -> subprocess.CompletedProcess[str]:
    """Run the real `trimtab-compressor fit` on a small task."""
    (folder / "task.py").write_text(TASK)
    (folder / "owner.key").write_text(encode_key(TEST_PRIVATE_KEY))
    return subprocess.run(
        [
            sys.executable, "-m", "trimtab_compressor.cli", "fit", str(folder / "task.py"),
            "--class", "class-a", "--class", "class-b", *budget,
            "--max-drop", "0.05", "--key", str(folder / "owner.key"),
            "--format", "onnx", "--recipe", "dynamic_w8", "--recipe", "static_w8a8_asym",
            "--cache", str(folder / "cache"), "--url", fleet.plane.facts.http_url,
            "--token", fleet.plane.token, "--rollout", "--probation-s", "0.5", *QUICK_TRIAL,
            "--json", str(folder / "fit.json"),
        ],
        capture_output=True, text=True, timeout=170, check=False,
    )  # fmt: skip


def test_fit_measures_on_the_devices_and_rolls_out_what_keeps_the_budget(
    fleet: Fleet, tmp_path: Path
) -> None:
    done = fit(fleet, tmp_path, "--budget", "size_bytes=40KB", "--budget", "p90_ms=1000")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "fit.json").read_text())
    assert found["rollout_state"] == "committed"
    chosen = found["chosen"]
    assert chosen["size_bytes"] < found["base"]["size_bytes"]
    devices = {row["device_class"] for row in chosen["classes"] if row["measurement"] is not None}
    assert devices == {"class-a", "class-b"}
    ref = f"squares@{chosen['artifact']['version']}"
    assert fleet.active("device-a", "squares") == fleet.active("device-b", "squares") == ref

    impossible = fit(fleet, tmp_path, "--budget", "size_bytes=1KB", "--budget", "p90_ms=1000")
    assert impossible.returncode == 2
    error = impossible.stderr.strip().splitlines()[-1]
    assert error.startswith("error: [rejected.budget]")
    assert "w8" in error, "the nearest candidate is named"
    assert fleet.active("device-a", "squares") == ref, "nothing was lost"
