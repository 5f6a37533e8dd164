"""Who may write and read which topic: the one rule set behind every embedded broker. [P-1.4]

Rules:
    1. The control plane may do everything below its site.
    2. A device writes `DEVICE_WRITES` and reads `DEVICE_READS` and its chunks, below its own name.
    3. A subscription is allowed when every topic that it can match may be read.
"""

from __future__ import annotations

from trimtab_protocol.topics import (
    DEVICE_READS,
    DEVICE_WRITES,
    ROOT,
    chunk_filter,
    device_topic,
)

CONTROL_PLANE_USER = "_control_plane"
"""No device can have this name: names begin with a letter or a digit."""


def may_write(site: str, user: str, topic: str) -> bool:
    """Whether a user may publish to a topic."""
    if user == CONTROL_PLANE_USER:
        return topic.startswith(f"{ROOT}/{site}/")
    return topic in {device_topic(site, user, leaf) for leaf in DEVICE_WRITES}


def may_read(site: str, user: str, topic: str) -> bool:
    """Whether a user may subscribe to a filter, or be given a message on a topic."""
    if user == CONTROL_PLANE_USER:
        return topic.startswith(f"{ROOT}/{site}/")
    chunks = chunk_filter(site, user)
    if topic == chunks or topic.startswith(chunks.removesuffix("#")):
        return True
    return topic in {device_topic(site, user, leaf) for leaf in DEVICE_READS}


def mosquitto_acl(site: str) -> str:
    """The same rules as a mosquitto ACL file; `%u` is the user name (mosquitto.conf(5))."""
    writes = [f"pattern write {device_topic(site, '%u', leaf)}" for leaf in DEVICE_WRITES]
    reads = [f"pattern read {device_topic(site, '%u', leaf)}" for leaf in DEVICE_READS]
    return "\n".join(
        [
            f"user {CONTROL_PLANE_USER}",
            f"topic readwrite {ROOT}/{site}/#",
            "",
            *writes,
            *reads,
            f"pattern read {chunk_filter(site, '%u')}",
            "",
        ]
    )
