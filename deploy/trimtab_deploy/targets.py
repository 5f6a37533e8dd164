"""New rollouts and trials: what they name must exist, and somebody must be there to do them."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection

from trimtab_deploy.engine.cohort import assign_stages
from trimtab_deploy.store import artifacts, desired, devices, rollouts, trials
from trimtab_deploy.store.rollouts import Target
from trimtab_protocol.api import Trial, TrialSpec
from trimtab_protocol.errors import ErrorCode, ProtocolError
from trimtab_protocol.messages import MAX_MESSAGE_BYTES, DesiredModel, encode
from trimtab_protocol.rollout import Rollout, RolloutSpec
from trimtab_protocol.signing import read_manifest

LONGEST_ID = "x" * 80
"""As long as a deployment's id may be."""


def add_rollout(connection: Connection, rollout_id: str, spec: RolloutSpec, now: float) -> Rollout:
    """Remember a rollout with its devices and their stages.

    Raises:
        ProtocolError: `protocol.unknown`: the artifact or a device is not known, or there is no
            device for it; `protocol.conflict`: a device is in another running one;
            `protocol.malformed`: a device's desired state would not fit into one message.
    """
    artifact = artifacts.get(connection, spec.name, spec.version)
    required = read_manifest(artifact.signed).requirements.device_classes
    chosen = choose_targets(spec, devices.classes(connection), required)
    for device in spec.devices:
        devices.get(connection, device)
    if not chosen:
        raise ProtocolError(
            f"no device for {artifact.ref}: classes wanted {list(spec.device_classes) or 'any'}, "
            f"required by the artifact {list(required) or 'any'}; a device counts from its first "
            "connection on, see `trimtab-deploy device list`",
            code=ErrorCode.PROTOCOL_UNKNOWN,
        )
    wanted = DesiredModel(deployment_id=LONGEST_ID, signed=artifact.signed, policy=spec.policy)
    _check_message_sizes(connection, chosen, spec.name, wanted)
    targets = [
        Target(device, chosen[device], stage)
        for device, stage in assign_stages(rollout_id, chosen, spec.stages)
    ]
    rollouts.add(connection, rollout_id, spec, artifact=artifact.ref, targets=targets, now=now)
    return rollouts.get(connection, rollout_id)


def _check_message_sizes(
    connection: Connection, chosen: Iterable[str], name: str, wanted: DesiredModel
) -> None:
    """Every model of a device travels in one message; the narrowest broker sets its size. [P-2.5]"""
    for device in chosen:
        after = desired.with_model(desired.get(connection, device), name, wanted)
        size_bytes = len(encode(after))
        if size_bytes > MAX_MESSAGE_BYTES:
            raise ProtocolError(
                f"the desired state of {device} would have {size_bytes} bytes with {name}, at most "
                f"{MAX_MESSAGE_BYTES} fit into one message: use smaller manifests (fewer golden "
                "vectors, larger chunks) or fewer models on this device"
            )


def choose_targets(
    spec: RolloutSpec, classes: dict[str, str], required: tuple[str, ...]
) -> dict[str, str]:
    """The devices of a rollout with their classes.

    Args:
        spec: Classes and devices that are wanted; empty means all.
        classes: Class of every device that has one.
        required: Classes that the artifact is for; empty means any.
    """
    return {
        device: device_class
        for device, device_class in classes.items()
        if (not spec.devices or device in spec.devices)
        and (not spec.device_classes or device_class in spec.device_classes)
        and (not required or device_class in required)
    }


def add_trial(connection: Connection, trial_id: str, spec: TrialSpec, now: float) -> Trial:
    """Queue a trial.

    Raises:
        ProtocolError: `protocol.unknown`: the artifact or the device is not known;
            `protocol.malformed`: the device is known to be of another class.
    """
    artifact = artifacts.get(connection, spec.name, spec.version)
    if spec.device is not None:
        device_class = devices.get(connection, spec.device).device_class
        if device_class not in (None, spec.device_class):
            raise ProtocolError(
                f"{spec.device} is of class {device_class}, the trial is for {spec.device_class}"
            )
    return trials.add(connection, trial_id, spec, artifact.ref, now)
