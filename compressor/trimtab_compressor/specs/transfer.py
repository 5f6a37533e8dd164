"""Transfer: what one network has learned serves another task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from trimtab_compressor.specs.base import Need, NetworkSpec


@dataclass(frozen=True, kw_only=True)
class Transfer(NetworkSpec):
    """What both ways share: where the features come from.

    Args:
        source_task: Another task's file. Its base network is trained by its own settings (once: it is
            kept), and its layers replace those of this task's network, which must be the same but for
            the last. None: the network as it comes, which `build_model` gives already pretrained or an
            earlier pass transferred.
    """

    needs: ClassVar[frozenset[Need]] = NetworkSpec.needs | {Need.TRAINING_LABELS}
    source_task: str | None = None

    def __post_init__(self) -> None:
        """Refuse a file without a name."""
        self.check(self.source_task != "", "source_task", "give the path of a task file")

    def task_files(self) -> tuple[str, ...]:
        """The source's task file."""
        return () if self.source_task is None else (self.source_task,)


@dataclass(frozen=True, kw_only=True)
class TransferFeatures(Transfer):
    """Leave all layers as they are, and train a new head on the features that they give.

    Args:
        hidden: Units of a hidden layer in the new head; 0 for a linear head.
    """

    pass_name: ClassVar[str] = "transfer_features"  # noqa: S105 - a name, not a password
    hidden: int = 0

    def __post_init__(self) -> None:
        """Refuse negative layers."""
        super().__post_init__()
        self.check(self.hidden >= 0, "hidden", "give 0 or more units")


@dataclass(frozen=True, kw_only=True)
class TransferFinetune(Transfer):
    """Train all layers further, from the head down (Howard & Ruder, 2018).

    Args:
        stages: Into so many the layers are divided; the head is one of them.
        epochs_per_stage: After so many epochs the next stage below is trained too; 0: all from the
            beginning.
        rate_decay: Each stage learns so many times as fast as the one above it, in (0, 1].
    """

    pass_name: ClassVar[str] = "transfer_finetune"  # noqa: S105 - a name, not a password
    stages: int = 3
    epochs_per_stage: int = 1
    rate_decay: float = 0.4

    def __post_init__(self) -> None:
        """Refuse what trains nothing."""
        super().__post_init__()
        self.check(self.stages >= 1, "stages", "give at least 1")
        self.check(self.epochs_per_stage >= 0, "epochs_per_stage", "it cannot be negative")
        self.check(0 < self.rate_decay <= 1, "rate_decay", "it must lie between 0 and 1")
