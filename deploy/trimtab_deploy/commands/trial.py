"""`trimtab-deploy trial …`."""

from __future__ import annotations

import argparse

from trimtab_deploy.client import Client
from trimtab_deploy.commands.connection import (
    connected,
    read_artifact_name,
    read_measure_spec,
    read_options,
)
from trimtab_deploy.commands.output import print_fields, print_json, show_reading
from trimtab_protocol.api import Trial, TrialSpec, TrialState

EXIT_NOT_MEASURED = 3
WAIT_S = 30.0
OPEN_STATES = (TrialState.QUEUED, TrialState.ASKED)


def create(chosen: argparse.Namespace) -> int:
    """Ask for a measurement, and wait for it if wanted."""
    name, version = read_artifact_name(chosen.artifact)
    spec = read_options(
        lambda: TrialSpec(
            name=name,
            version=version,
            device_class=chosen.device_class,
            device=chosen.device,
            measure=read_measure_spec(chosen),
            expires_s=chosen.expires_s,
        )
    )
    with connected(chosen) as client:
        trial = client.create_trial(spec)
        if chosen.wait:
            trial = _wait(client, trial)
    _print(trial, as_json=chosen.json)
    return EXIT_NOT_MEASURED if chosen.wait and trial.state is not TrialState.MEASURED else 0


def show(chosen: argparse.Namespace) -> int:
    """One trial."""
    with connected(chosen) as client:
        _print(client.trial(chosen.trial_id), as_json=chosen.json)
    return 0


def _wait(client: Client, trial: Trial) -> Trial:
    while trial.state in OPEN_STATES:
        trial = client.trial(trial.trial_id, wait_s=WAIT_S)
    return trial


def _print(trial: Trial, *, as_json: bool) -> None:
    if as_json:
        print_json(trial)
        return
    fields = [
        ("trial", trial.trial_id),
        ("artifact", str(trial.artifact)),
        ("state", trial.state.value),
        ("device", trial.device or "-"),
        ("error", "" if trial.error_code is None else trial.error_code.value),
        ("detail", trial.detail),
    ]
    found = trial.measurement
    if found is not None:
        fields += [
            ("p50", show_reading(found.latency.p50_ms, " ms")),
            ("p90", show_reading(found.latency.p90_ms, " ms")),
            ("p99", show_reading(found.latency.p99_ms, " ms")),
            ("peak memory", show_reading(found.memory.peak_bytes, " bytes", 10)),
            ("energy", show_reading(found.energy.per_inference_mj, " mJ")),
            ("stability", f"{found.stability.value} {'; '.join(found.stability_reasons)}".strip()),
        ]
    print_fields(fields)
