"""`keys`: make the pair of keys that signs artifacts, or show one."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "make or show the keys that sign artifacts"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`new` and `show`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    new = actions.add_parser("new", help="write NAME.key (keep it secret) and NAME.pub")
    new.add_argument("--out", type=Path, required=True, metavar="DIR")
    new.add_argument("--name", default="release")
    show = actions.add_parser("show", help="print the id of a public key")
    show.add_argument("file", type=Path)


def run(options: argparse.Namespace) -> None:
    """Do one of both.

    Raises:
        ConfigError: A key exists already, or cannot be read.
    """
    from trimtab_compressor.keys import create_keys, read_key  # noqa: PLC0415 - keeps start fast
    from trimtab_protocol.signing import encode_key, key_id_of, public_key_of  # noqa: PLC0415

    if options.action == "new":
        pair = create_keys(options.out, options.name)
        print(f"private key  {pair.private_path} (keep it secret; it signs everything)")
        print(f"public key   {pair.public_path} (devices trust it)")
        print(f"key id       {pair.key_id}")
        return
    key = read_key(options.file)
    public_key = public_key_of(key) if options.file.suffix == ".key" else key
    print(f"key id       {key_id_of(public_key)}")
    print(f"public key   {encode_key(public_key)}")
