"""`push`: make a packaged artifact known to a control plane."""

from __future__ import annotations

import argparse
from pathlib import Path

from trimtab_compressor.commands.options import add_server_arguments, open_control_plane

HELP = "send a packaged artifact to a control plane"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Manifest, server."""
    parser.add_argument("manifest", type=Path, help="NAME-VERSION.manifest.json")
    add_server_arguments(parser)


def run(options: argparse.Namespace) -> None:
    """Send payload and manifest.

    Raises:
        ConfigError: The files are not what they should be.
        ProtocolError: The version exists with other content.
        TransientError: The control plane cannot be reached.
    """
    from trimtab_compressor.package import read_artifact  # noqa: PLC0415 - keeps start fast

    artifact = read_artifact(options.manifest)
    with open_control_plane(options) as plane:
        found = plane.push(artifact.signed, artifact.model_path.read_bytes())
    print(f"artifact     {found.ref} sha256 {found.ref.sha256}")
