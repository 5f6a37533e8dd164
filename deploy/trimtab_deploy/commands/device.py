"""`trimtab-deploy device …`."""

from __future__ import annotations

import argparse
import sys

from trimtab_deploy.commands.connection import connected, read_options
from trimtab_deploy.commands.output import print_fields, print_json, print_table, show_time
from trimtab_deploy.files import write_atomically
from trimtab_protocol.api import Device, DeviceSpec
from trimtab_protocol.errors import ConfigError


def add(chosen: argparse.Namespace) -> int:
    """Make a device known; its credentials go to a file or to the output, once."""
    labels = dict(_read_label(text) for text in chosen.label)
    spec = read_options(lambda: DeviceSpec(device=chosen.name, labels=labels))
    if chosen.out is not None and not chosen.out.absolute().parent.is_dir():
        raise ConfigError(f"there is no folder {chosen.out.absolute().parent}")
    with connected(chosen) as client:
        credentials = client.add_device(spec)
    if chosen.out is None:
        print_json(credentials)
        return 0
    text = credentials.model_dump_json(indent=2) + "\n"
    write_atomically(chosen.out, text, mode=0o600)
    sys.stdout.write(f"{credentials.device}: credentials in {chosen.out}\n")
    return 0


def show_all(chosen: argparse.Namespace) -> int:
    """All devices."""
    with connected(chosen) as client:
        found = client.devices()
    if chosen.json:
        print_json(found)
        return 0
    rows = [
        (
            row.device,
            row.presence.value,
            row.device_class or "-",
            ", ".join(_models(row)) or "-",
            show_time(row.last_seen_at),
        )
        for row in found
    ]
    print_table(("DEVICE", "PRESENCE", "CLASS", "ACTIVE", "LAST SEEN"), rows)
    return 0


def show(chosen: argparse.Namespace) -> int:
    """One device."""
    with connected(chosen) as client:
        found = client.device(chosen.name)
    if chosen.json:
        print_json(found)
        return 0
    birth = found.birth
    fields = [
        ("device", found.device),
        ("presence", found.presence.value),
        ("class", found.device_class or "-"),
        ("labels", ", ".join(f"{key}={value}" for key, value in found.labels.items())),
        ("active", ", ".join(_models(found)) or "-"),
        ("last seen", show_time(found.last_seen_at)),
    ]
    if birth is not None:
        fields += [
            ("board", birth.board),
            ("cpu", f"{birth.cpu} ({birth.cores} cores)"),
            ("runtimes", ", ".join(f"{row.name.value} {row.version}" for row in birth.runtimes)),
            ("sensors", ", ".join(birth.sensors)),
            ("agent", birth.agent_version),
        ]
    print_fields(fields)
    return 0


def _models(device: Device) -> list[str]:
    if device.reported is None:
        return []
    return [str(row.active) for row in device.reported.models.values() if row.active is not None]


def _read_label(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not key or not separator:
        raise ConfigError(f"a label is KEY=VALUE, not {text!r}")
    return key, value
