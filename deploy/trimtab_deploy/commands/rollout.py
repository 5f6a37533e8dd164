"""`trimtab-deploy rollout …`."""

from __future__ import annotations

import argparse
import sys

from rich.console import Group
from rich.live import Live
from rich.text import Text

from trimtab_deploy.client import Client
from trimtab_deploy.commands.connection import (
    connected,
    read_artifact_name,
    read_measure_spec,
    read_options,
)
from trimtab_deploy.commands.output import (
    make_table,
    print_fields,
    print_json,
    print_table,
    show_reading,
    show_time,
)
from trimtab_protocol.errors import ConfigError
from trimtab_protocol.measurement import Measurement
from trimtab_protocol.messages import Policy
from trimtab_protocol.rollout import (
    Gate,
    OnFailure,
    Rollout,
    RolloutDevice,
    RolloutSpec,
    RolloutState,
    StageSpec,
)

EXIT_NOT_COMMITTED = 3
WAIT_S, WATCH_S = 2.0, 0.5
COLUMNS = ("DEVICE", "CLASS", "STAGE", "STATE", "P90", "P90 RATIO", "REASON")


def create(chosen: argparse.Namespace) -> int:
    """Begin a rollout, and wait for its end if wanted."""
    spec = read_spec(chosen)
    with connected(chosen) as client:
        rollout = client.create_rollout(spec)
        if chosen.wait:
            rollout = _wait(client, rollout)
    _print(rollout, as_json=chosen.json)
    return _exit_code(rollout) if chosen.wait else 0


def show_all(chosen: argparse.Namespace) -> int:
    """All rollouts."""
    with connected(chosen) as client:
        found = client.rollouts()
    if chosen.json:
        print_json(found)
        return 0
    rows = [
        (
            row.rollout_id,
            str(row.artifact),
            row.state.value,
            f"{row.stage + 1}/{len(row.spec.stages)}",
            show_time(row.created_at),
            row.reason,
        )
        for row in found
    ]
    print_table(("ROLLOUT", "ARTIFACT", "STATE", "STAGE", "BEGAN", "REASON"), rows)
    return 0


def show(chosen: argparse.Namespace) -> int:
    """One rollout."""
    with connected(chosen) as client:
        _print(client.rollout(chosen.rollout_id), as_json=chosen.json)
    return 0


def watch(chosen: argparse.Namespace) -> int:
    """One rollout, live."""
    with connected(chosen) as client:
        rollout = client.rollout(chosen.rollout_id)
        if chosen.json:
            rollout = _wait(client, rollout)
            print_json(rollout)
            return _exit_code(rollout)
        with Live(_picture(rollout), refresh_per_second=4) as live:
            while rollout.state is RolloutState.RUNNING:
                rollout = client.rollout(chosen.rollout_id, wait_s=WATCH_S)
                live.update(_picture(rollout))
    return _exit_code(rollout)


def abort(chosen: argparse.Namespace) -> int:
    """End a rollout."""
    with connected(chosen) as client:
        _print(client.abort_rollout(chosen.rollout_id), as_json=chosen.json)
    return 0


def read_spec(chosen: argparse.Namespace) -> RolloutSpec:
    """The rollout that the options describe.

    Raises:
        ConfigError: An option has a value that is not allowed.
    """
    name, version = read_artifact_name(chosen.artifact)
    limit = Gate().max_p90_ratio if chosen.max_p90_ratio is None else chosen.max_p90_ratio or None
    stages = tuple(read_stage(text) for text in chosen.stages)
    return read_options(
        lambda: RolloutSpec(
            name=name,
            version=version,
            device_classes=tuple(chosen.device_classes),
            devices=tuple(chosen.devices),
            gate=Gate(
                max_p90_ratio=limit,
                max_failed_ratio=chosen.max_failed_ratio,
                deadline_s=chosen.deadline_s,
            ),
            policy=Policy(
                probe=read_measure_spec(chosen),
                probation_s=chosen.probation_s,
                heartbeat_timeout_s=chosen.heartbeat_timeout_s,
                max_app_p90_ratio=chosen.max_app_p90_ratio,
                max_fetch_bytes_per_s=chosen.max_fetch_bytes_per_s,
            ),
            on_failure=OnFailure(chosen.on_failure),
            **({"stages": stages} if stages else {}),
        )
    )


def read_stage(text: str) -> StageSpec:
    """Read `count=N` or `ratio=X`.

    Raises:
        ConfigError: It is neither.
    """
    kind, _, value = text.partition("=")
    try:
        if kind == "count":
            return read_options(lambda: StageSpec(count=int(value)))
        if kind == "ratio":
            return read_options(lambda: StageSpec(ratio=float(value)))
    except ValueError as error:
        raise ConfigError(f"--stage {text}: {value!r} is not a number") from error
    raise ConfigError(f"a stage is count=N or ratio=X, not {text!r}")


def _wait(client: Client, rollout: Rollout) -> Rollout:
    """Wait for the end, saying on stderr what each device does."""
    known: dict[str, str] = {}
    while rollout.state is RolloutState.RUNNING:
        rollout = client.rollout(rollout.rollout_id, wait_s=WAIT_S)
        for row in rollout.devices:
            state = row.state.value if row.state is not None else ""
            if state and known.get(row.device) != state:
                known[row.device] = state
                print(f"{row.device}: {state}", file=sys.stderr)
    return rollout


def _exit_code(rollout: Rollout) -> int:
    return 0 if rollout.state is RolloutState.COMMITTED else EXIT_NOT_COMMITTED


def _print(rollout: Rollout, *, as_json: bool) -> None:
    if as_json:
        print_json(rollout)
        return
    print_fields(_fields(rollout))
    sys.stdout.write("\n")
    print_table(COLUMNS, [_row(row) for row in rollout.devices])


def _picture(rollout: Rollout) -> Group:
    head = "\n".join(f"{name}: {value}" for name, value in _fields(rollout) if value)
    return Group(Text(head), make_table(COLUMNS, [_row(row) for row in rollout.devices]))


def _fields(rollout: Rollout) -> list[tuple[str, str]]:
    gates = [
        (f"gate {number}", f"{verdict.outcome.value}: {verdict.reason}")
        for number, verdict in enumerate(rollout.verdicts, 1)
    ]
    return [
        ("rollout", rollout.rollout_id),
        ("artifact", str(rollout.artifact)),
        ("state", rollout.state.value),
        ("stage", f"{rollout.stage + 1} of {len(rollout.spec.stages)}"),
        *gates,
        ("reason", rollout.reason),
    ]


def _row(row: RolloutDevice) -> tuple[str, ...]:
    ratio = None if row.comparison is None else row.comparison.p90_ratio
    code = "" if row.error_code is None else f"[{row.error_code.value}] "
    return (
        row.device,
        row.device_class,
        str(row.stage + 1),
        "-" if row.state is None else row.state.value,
        _p90(row.measurement),
        show_reading(ratio),
        f"{code}{row.detail}",
    )


def _p90(measurement: Measurement | None) -> str:
    return "-" if measurement is None else show_reading(measurement.latency.p90_ms, " ms")
