"""The demo, step by step, with the real programs over their real interfaces.

1  control plane, two device classes, one agent each
2  train the reference network; measure fp32 on both classes; roll it out
3  fit: measure the candidates, keep the gentlest that holds the budget, roll it out
4  try to roll out two bad artifacts; both must be refused, and nothing may change
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from processes import CommandError, Processes
from result import DeviceOutcome, RolloutOutcome

from trimtab_compressor.fit_report import FitReport
from trimtab_protocol.api import Device, Trial
from trimtab_protocol.base import parse_wire
from trimtab_protocol.manifest import ArtifactRef, Manifest, SignedManifest
from trimtab_protocol.measurement import Measurement, Stability
from trimtab_protocol.messages import Presence
from trimtab_protocol.rollout import Rollout
from trimtab_protocol.signing import read_manifest

TASK = Path(__file__).resolve().parent / "digits.py"
NAME = "mnist-cnn"
CLASSES = {"one-thread": 1, "two-threads": 2}
P90_SHARE = 0.8
SIZE_SHARE = 1 / 8
MAX_DROP = 0.005
MAX_TRIALS = 3
MEASURE = (
    *("--processes", "5", "--min-runs", "500", "--min-steady-s", "0.4", "--warm-up-s", "0.2"),
    *("--energy-windows", "0"),  # both devices of the demo are one machine
)
PROBE = tuple(
    word.replace("--", "--probe-") for word in MEASURE
)  # the same effort on the device before an activation
PROBATION = ("--probation-s", "2")

AGENT_TOML = """\
state_dir = "state"
credentials = "credentials.json"
trusted_keys = ["{public_key}"]
device_class = "{device_class}"

[mqtt]
first_connect_timeout_s = 30

[measure]
threads = {threads}
is_spinning_allowed = {spinning}
lock = "{lock}"
"""

Step = Callable[[str], AbstractContextManager[Callable[[str], None]]]


@dataclass
class Story:
    """What the steps share.

    Args:
        out: `demo-out`.
        processes: Starts everything.
        step: Shows a step and gives a function for its details.
        broker: auto, mosquitto or amqtt.
    """

    out: Path
    processes: Processes
    step: Step
    broker: str
    rollouts: dict[str, RolloutOutcome] = field(default_factory=dict)

    @property
    def run(self) -> Path:
        """Folder of this run; made anew each time."""
        return self.out / "run"

    @property
    def plane(self) -> Path:
        """Data folder of the control plane."""
        return self.run / "control-plane"

    @property
    def key(self) -> Path:
        """The owner's private key."""
        return self.run / "keys" / "release.key"

    def start_fleet(self) -> str:
        """Control plane and agents; gives the broker's product name."""
        with self.step("control plane, one agent per device class") as say:
            self.call(say, "trimtab-compressor", "keys", "new", "--out", str(self.key.parent))
            self.processes.start(
                "control-plane", "trimtab-deploy", "serve", "--data", str(self.plane),
                "--http-port", "0", "--mqtt-port", "0", "--broker", self.broker,
            )  # fmt: skip
            self.wait("the control plane", (self.plane / "server.json").exists)
            for device_class, threads in CLASSES.items():
                self._start_agent(say, device_class, threads)
            self.wait("both agents to be online", lambda: len(self._online(say)) == len(CLASSES))
            facts = (self.plane / "server.json").read_text()
            return "mosquitto" if '"mosquitto"' in facts else "amqtt"

    def measure_fp32(self) -> dict[str, Measurement]:
        """Train, package and push the base; measure it on each class; roll it out."""
        with self.step("train the reference network (full MNIST)") as say:
            self.call(
                say, "trimtab-compressor", "run", str(TASK), "--recipe", "fp32",
                "--format", "onnx", "--out", str(self.run / "fp32"),
            )  # fmt: skip
            model = next((self.run / "fp32").glob("*.onnx"))
            self.call(
                say, "trimtab-compressor", "package", str(model), "--name", NAME, "--version", "1",
                "--key", str(self.key), "--out", str(self.run / "artifacts"),
                "--task", str(TASK), "--recipe", "fp32",
            )  # fmt: skip
            self._push(say, self.run / "artifacts" / f"{NAME}-1.manifest.json")
        found = {}
        for device_class in CLASSES:
            with self.step(f"measure fp32 on {device_class}") as say:
                found[device_class] = self._steady_trial(say, device_class)
                say(_describe(found[device_class]))
        self.roll_out("first", "fp32, the incumbent", 1)
        return found

    def fit(self, fp32: dict[str, Measurement], fp32_bytes: int) -> FitReport:
        """Fit to a budget that fp32 does not keep."""
        report = self.run / "fit.json"
        budgets = [f"size_bytes={int(fp32_bytes * SIZE_SHARE)}"]
        for device_class, measurement in fp32.items():
            limit_ms = measurement.latency.p90_ms.known() * P90_SHARE
            budgets.append(f"{device_class}:p90_ms={limit_ms:.5f}")
        with self.step("fit to " + ", ".join(budgets) + f", drop <= {MAX_DROP}") as say:
            self.call(
                say, "trimtab-compressor", "fit", str(TASK), "--name", NAME,
                *(word for name in CLASSES for word in ("--class", name)),
                *(word for text in budgets for word in ("--budget", text)),
                "--max-drop", str(MAX_DROP), "--key", str(self.key), "--measure-all", "--rollout",
                *PROBATION, *MEASURE, "--json", str(report), "--out", str(self.run / "chosen"),
                *self._server_options(),
            )  # fmt: skip
        found = parse_wire(FitReport, report.read_bytes(), what="fit report")
        if found.chosen is None or found.chosen.artifact is None or found.rollout_id is None:
            raise CommandError("the fit ended without a choice")
        self._remember("chosen", "the fitted artifact", self._rollout(found.rollout_id))
        return found

    def refuse_bad_ones(self, version: int) -> None:
        """Roll out two bad artifacts."""
        from bad_artifacts import make_bad_golden, make_slower  # noqa: PLC0415 - imports torch

        from trimtab_compressor.task_file import load_task  # noqa: PLC0415

        with self.step("make two bad artifacts, properly signed") as say:
            task = load_task(TASK)
            good = self._chosen_manifest()
            model = next(
                path
                for path in (self.run / "chosen").iterdir()
                if path.suffix in (".onnx", ".tflite")
            )
            folder = self.run / "bad"
            manifests = (
                make_bad_golden(task, model, good, version + 1, key=self.key, folder=folder),
                make_slower(task, NAME, version + 2, self.key, folder),
            )
            for manifest in manifests:
                self._push(say, manifest)
        self.roll_out("bad_golden", "golden vectors do not match", version + 1)
        self.roll_out("bad_slower", "much slower than the incumbent", version + 2)

    def roll_out(self, key: str, what: str, version: int) -> None:
        """Roll a version out in two stages and remember how it ended, refused or not."""
        with self.step(f"roll out {NAME}@{version}: {what}") as say:
            text = self.call(
                say, "trimtab-deploy", "rollout", "create", f"{NAME}@{version}",
                "--stage", "count=1", "--stage", "ratio=1.0", *PROBATION, *PROBE, "--wait", "--json",
                "--data", str(self.plane), expected=(0, 3),
            )  # fmt: skip
            outcome = self._remember(key, what, parse_wire(Rollout, text, what="rollout"))
            say(f"{outcome.state.value} {outcome.error_code.value if outcome.error_code else ''}")

    def call(
        self, say: Callable[[str], None], *command: str, expected: tuple[int, ...] = (0,)
    ) -> str:
        """Run one command to its end, showing what it says."""
        self.processes.check_alive()
        return self.processes.call(*command, on_line=say, expected=expected)

    def wait(self, what: str, condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
        """Poll until a condition holds.

        Raises:
            CommandError: It did not hold in time, or a process died.
        """
        until = time.monotonic() + timeout_s
        while not condition():
            self.processes.check_alive()
            if time.monotonic() > until:
                raise CommandError(f"waited {timeout_s:.0f} s for {what}")
            time.sleep(0.1)

    def _start_agent(self, say: Callable[[str], None], device_class: str, threads: int) -> None:
        folder = self.run / device_class
        folder.mkdir(parents=True)
        self.call(
            say, "trimtab-deploy", "device", "add", f"device-{device_class}",
            "--data", str(self.plane), "--out", str(folder / "credentials.json"),
        )  # fmt: skip
        (folder / "agent.toml").write_text(
            AGENT_TOML.format(
                public_key=self.key.with_suffix(".pub"),
                device_class=device_class,
                threads=threads,
                spinning=str(threads > 1).lower(),
                lock=self.run / "measure.lock",
            )
        )
        self.processes.start(
            device_class, "trimtab-agent", "run", "--config", str(folder / "agent.toml")
        )

    def _devices(self, say: Callable[[str], None]) -> Iterator[Device]:
        for device_class in CLASSES:
            text = self.call(
                say, "trimtab-deploy", "device", "show", f"device-{device_class}", "--json",
                "--data", str(self.plane),
            )  # fmt: skip
            yield parse_wire(Device, text, what="device")

    def _online(self, say: Callable[[str], None]) -> list[Device]:
        return [row for row in self._devices(say) if row.presence is Presence.ONLINE]

    def _steady_trial(self, say: Callable[[str], None], device_class: str) -> Measurement:
        """A measurement to take a budget from: again while other work disturbs it, the fastest counts."""
        found = [self._trial(say, device_class)]
        while found[-1].stability is Stability.CONTENDED and len(found) < MAX_TRIALS:
            say(f"{_describe(found[-1])}: again")
            found.append(self._trial(say, device_class))
        return min(found, key=lambda row: row.latency.p90_ms.known())

    def _trial(self, say: Callable[[str], None], device_class: str) -> Measurement:
        text = self.call(
            say, "trimtab-deploy", "trial", "create", f"{NAME}@1", "--class", device_class,
            "--wait", "--json", *MEASURE, "--data", str(self.plane),
        )  # fmt: skip
        trial = parse_wire(Trial, text, what="trial")
        if trial.measurement is None:
            raise CommandError(f"trial on {device_class}: {trial.error_code} {trial.detail}")
        return trial.measurement

    def _push(self, say: Callable[[str], None], manifest: Path) -> None:
        self.call(say, "trimtab-compressor", "push", str(manifest), *self._server_options())

    def _server_options(self) -> tuple[str, ...]:
        token = (self.plane / "admin.token").read_text().strip()
        return ("--url", self._url(), "--token", token)

    def _url(self) -> str:
        return str(json.loads((self.plane / "server.json").read_text())["http_url"])

    def _chosen_manifest(self) -> Manifest:
        path = next((self.run / "chosen").glob("*.manifest.json"))
        return read_manifest(parse_wire(SignedManifest, path.read_bytes(), what=str(path)))

    def _rollout(self, rollout_id: str) -> Rollout:
        text = self.call(
            lambda _line: None, "trimtab-deploy", "rollout", "show", rollout_id, "--json",
            "--data", str(self.plane),
        )  # fmt: skip
        return parse_wire(Rollout, text, what="rollout")

    def _remember(self, key: str, what: str, rollout: Rollout) -> RolloutOutcome:
        active = {row.device: row for row in self._devices(lambda _line: None)}
        codes = [row.error_code for row in rollout.devices if row.error_code is not None]
        devices = tuple(
            DeviceOutcome(
                device=row.device,
                device_class=row.device_class,
                state=row.state.value if row.state is not None else "not_begun",
                active=_active_on(active[row.device]),
                comparison=row.comparison,
            )
            for row in rollout.devices
        )
        outcome = RolloutOutcome(
            what=what,
            artifact=rollout.artifact,
            state=rollout.state,
            error_code=codes[0] if codes else None,
            reason=rollout.reason,
            devices=devices,
        )
        self.rollouts[key] = outcome
        return outcome


def _active_on(device: Device) -> ArtifactRef | None:
    status = device.reported.models.get(NAME) if device.reported is not None else None
    return status.active if status is not None else None


def _describe(measurement: Measurement) -> str:
    p50, p90 = measurement.latency.p50_ms, measurement.latency.p90_ms
    return f"p50 {p50.known():.4f} ms, p90 {p90.known():.4f} ms, {measurement.stability.value}"
