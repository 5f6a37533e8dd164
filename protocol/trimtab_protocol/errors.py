"""The error tree, branched by what the catcher does.

    TrimtabError                 carries a stable dotted code, sent on the wire
    ├── ConfigError              our own settings or input are wrong    → exit 2, name the thing and the remedy
    ├── ProtocolError            a peer broke the contract              → drop the message, count it, report once
    ├── TrustError               signature, digest, length, version     → delete, report, never retry
    ├── RejectedError            refused by policy                      → report the reason; the server decides
    ├── TransientError           the world may improve (broker, HTTP)   → back off with jitter, bounded
    ├── ModelError               the model loads or runs wrongly        → back to the last good one
    └── StorageError             the store cannot be written            → stay on the active model, raise the alarm

A code never changes its meaning. Its first part names the branch (`trust.signature` is a
`TrustError`), so a peer that does not know a new code still knows what to do with it: it reads,
keeps and repeats the code as it stands.
"""

from __future__ import annotations

import re
from enum import Enum

CODE_PATTERN = re.compile(
    r"(config|protocol|trust|rejected|transient|model|storage)\.[a-z0-9_]{1,40}"
)
"""What a code looks like; a newer peer may send one that is not listed below."""


class ErrorCode(str, Enum):
    """Every code that travels on the wire. [P-2.4]"""

    CONFIG_INVALID = "config.invalid"
    CONFIG_MISSING = "config.missing"
    CONFIG_IN_USE = "config.in_use"  # another process already owns this data folder

    PROTOCOL_MALFORMED = "protocol.malformed"
    PROTOCOL_VERSION = "protocol.version"  # unknown major version
    PROTOCOL_CONFLICT = "protocol.conflict"  # same name@version, other content
    PROTOCOL_UNKNOWN = "protocol.unknown"  # names a device, artifact or payload that nobody knows
    PROTOCOL_UNAUTHORIZED = "protocol.unauthorized"

    TRUST_SIGNATURE = "trust.signature"  # by a trusted key id, but the signature does not match
    TRUST_KEY = "trust.key"  # signed by nobody this device trusts
    TRUST_CHUNK_DIGEST = "trust.chunk_digest"
    TRUST_PAYLOAD_DIGEST = "trust.payload_digest"
    TRUST_PAYLOAD_LENGTH = "trust.payload_length"
    TRUST_VERSION = "trust.version"  # older than what this device already committed

    REJECTED_DEVICE_CLASS = "rejected.device_class"
    REJECTED_RUNTIME = "rejected.runtime"
    REJECTED_DISK = "rejected.disk"
    REJECTED_MEMORY = "rejected.memory"
    REJECTED_BUDGET = "rejected.budget"  # measured here, and over a limit of its budget
    REJECTED_SLOWER = "rejected.slower"  # measured here, and slower than the incumbent allows
    REJECTED_SUPERSEDED = "rejected.superseded"  # a newer desired state came before activation
    REJECTED_EXPIRED = "rejected.expired"
    REJECTED_HOOK = "rejected.hook"  # a hook of the device's owner said no

    TRANSIENT_BROKER = "transient.broker"
    TRANSIENT_CONTROL_PLANE = "transient.control_plane"
    TRANSIENT_DELIVERY = "transient.delivery"  # chunks stopped arriving
    TRANSIENT_BUSY = "transient.busy"

    MODEL_LOAD = "model.load"
    MODEL_GOLDEN = "model.golden"  # runs, but not to the golden outputs
    MODEL_CRASH = "model.crash"
    MODEL_TIMEOUT = "model.timeout"
    MODEL_MEMORY = "model.memory"
    MODEL_UNREADABLE = "model.unreadable"
    MODEL_HEARTBEAT = "model.heartbeat"  # in probation an application fell silent
    MODEL_SLOW_IN_USE = "model.slow_in_use"  # in probation an application found it too slow

    STORAGE_WRITE = "storage.write"
    STORAGE_CORRUPT = "storage.corrupt"

    @classmethod
    def _missing_(cls, value: object) -> ErrorCode | None:
        """Keep a newer peer's code of a known branch, instead of refusing its whole message."""
        if not isinstance(value, str) or not CODE_PATTERN.fullmatch(value):
            return None
        newer = str.__new__(cls, value)
        newer._name_ = value.replace(".", "_").upper()
        newer._value_ = value
        return newer


class TrimtabError(Exception):
    """Root of all errors of this project.

    Args:
        message: What was expected, what was found, and what the person can do.
        code: Stable code for the wire; each subclass has a default.
    """

    default_code = ErrorCode.PROTOCOL_MALFORMED

    def __init__(self, message: str, *, code: ErrorCode | None = None) -> None:
        super().__init__(message)
        self.code = code if code is not None else self.default_code

    @property
    def message(self) -> str:
        """The sentence for a person, without the code."""
        return str(self.args[0])


class ConfigError(TrimtabError):
    """Our own settings or input are wrong: say which, and exit with 2."""

    default_code = ErrorCode.CONFIG_INVALID


class ProtocolError(TrimtabError):
    """A peer broke the contract: drop the message and count it."""

    default_code = ErrorCode.PROTOCOL_MALFORMED


class TrustError(TrimtabError):
    """Signature, digest, length or version do not hold: delete and report."""

    default_code = ErrorCode.TRUST_SIGNATURE


class RejectedError(TrimtabError):
    """Refused by policy: report the reason, the server decides."""

    default_code = ErrorCode.REJECTED_BUDGET


class TransientError(TrimtabError):
    """The world may improve: back off, bounded."""

    default_code = ErrorCode.TRANSIENT_BROKER


class ModelError(TrimtabError):
    """The model loads or runs wrongly: go back to the last good one."""

    default_code = ErrorCode.MODEL_LOAD


class StorageError(TrimtabError):
    """The store cannot be written: stay on the active model."""

    default_code = ErrorCode.STORAGE_WRITE


BRANCHES: dict[str, type[TrimtabError]] = {
    "config": ConfigError,
    "protocol": ProtocolError,
    "trust": TrustError,
    "rejected": RejectedError,
    "transient": TransientError,
    "model": ModelError,
    "storage": StorageError,
}


def error_from_code(code: ErrorCode, message: str) -> TrimtabError:
    """Rebuild the right branch of the tree from a code that came over a wire or a pipe."""
    return BRANCHES[code.value.split(".", 1)[0]](message, code=code)
