"""Topics: built and read in one place. [P-1.1]

    trimtab/v1/{site}/d/{device}/{leaf}
    trimtab/v1/{site}/d/{device}/chunk/{sha256}/{index}

At most seven slashes, because AWS IoT allows no more. The sender of a message is the device in the
topic, which the broker's ACL guards; never a field of the payload.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from trimtab_protocol.errors import ProtocolError

ROOT = "trimtab/v1"
NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
SHA_PATTERN = re.compile(r"[0-9a-f]{64}")
INDEX_PATTERN = re.compile(r"0|[1-9][0-9]{0,6}")
"""Decimal without leading zeros, so that a chunk has one topic; seven digits reach the largest payload
in the smallest chunks."""


class Leaf(str, Enum):
    """Last level of a device's topics."""

    BIRTH = "birth"
    STATUS = "status"
    DESIRED = "desired"
    REPORTED = "reported"
    ASK = "ask"
    REPORT = "report"
    ACK = "ack"
    GET = "get"


DEVICE_WRITES = (Leaf.BIRTH, Leaf.STATUS, Leaf.REPORTED, Leaf.REPORT, Leaf.GET)
"""What a device may publish below its own name, and nothing else. [P-1.4]"""

DEVICE_READS = (Leaf.DESIRED, Leaf.ASK, Leaf.ACK)
"""What a device may read below its own name, with its chunks, and nothing else. [P-1.4]"""

RETAINED = frozenset({Leaf.BIRTH, Leaf.STATUS, Leaf.DESIRED, Leaf.REPORTED})


@dataclass(frozen=True)
class DeviceTopic:
    """A topic of one device, taken apart."""

    site: str
    device: str
    leaf: Leaf


@dataclass(frozen=True)
class ChunkTopic:
    """A chunk's topic, taken apart."""

    site: str
    device: str
    sha256: str
    index: int


def device_topic(site: str, device: str, leaf: Leaf) -> str:
    """Topic of one leaf of one device."""
    return f"{ROOT}/{site}/d/{device}/{leaf.value}"


def chunk_topic(site: str, device: str, sha256: str, index: int) -> str:
    """Topic of one chunk for one device."""
    return f"{ROOT}/{site}/d/{device}/chunk/{sha256}/{index}"


def chunk_filter(site: str, device: str) -> str:
    """Subscription for all chunks of one device."""
    return f"{ROOT}/{site}/d/{device}/chunk/#"


def fleet_filter(site: str, leaf: Leaf) -> str:
    """Subscription of the control plane: one leaf of every device."""
    return f"{ROOT}/{site}/d/+/{leaf.value}"


def parse_topic(topic: str) -> DeviceTopic | ChunkTopic:
    """Take a topic apart.

    Raises:
        ProtocolError: It is not one of ours. Drop the message.
    """
    parts = topic.split("/")
    if len(parts) in (6, 8) and parts[:2] == ROOT.split("/") and parts[3] == "d":
        site, device = parts[2], parts[4]
        if NAME_PATTERN.fullmatch(site) and NAME_PATTERN.fullmatch(device):
            if len(parts) == 6 and parts[5] in Leaf._value2member_map_:
                return DeviceTopic(site, device, Leaf(parts[5]))
            if len(parts) == 8 and parts[5] == "chunk":
                return _parse_chunk(site, device, parts[6], parts[7])
    raise ProtocolError(f"not a topic of this protocol: {topic[:200]!r}")


def _parse_chunk(site: str, device: str, sha256: str, index: str) -> ChunkTopic:
    if not SHA_PATTERN.fullmatch(sha256) or not INDEX_PATTERN.fullmatch(index):
        raise ProtocolError(f"not a chunk of this protocol: {sha256[:80]!r} / {index[:20]!r}")
    return ChunkTopic(site, device, sha256, int(index))
