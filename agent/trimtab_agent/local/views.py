"""What applications see of a model name; read from the store by the decision thread."""

from __future__ import annotations

from trimtab_agent.journal import Journal
from trimtab_agent.store import Store
from trimtab_protocol.base import Sha256, WireModel
from trimtab_protocol.errors import ErrorCode
from trimtab_protocol.lifecycle import DeploymentState
from trimtab_protocol.manifest import ArtifactRef, ModelFormat, RuntimeName


class ActiveModel(WireModel):
    """The model in use.

    Args:
        path: The stable path: it leads to whatever is active when it is opened.
        slot_path: This very file. It never changes, and is there at least until another version
            is committed, or this one was gone back from.
    """

    artifact: str
    version: int
    sha256: Sha256
    size_bytes: int
    format: ModelFormat
    runtime: RuntimeName
    path: str
    slot_path: str


class DeploymentView(WireModel):
    """The newest deployment of the name."""

    deployment_id: str
    artifact: ArtifactRef | None
    state: DeploymentState
    error_code: ErrorCode | None
    detail: str


class ModelView(WireModel):
    """One model name."""

    name: str
    active: ActiveModel | None
    last_good: ArtifactRef | None
    deployment: DeploymentView | None

    @property
    def is_activating(self) -> bool:
        """Whether its link is about to be swapped; so it is where a kill came in between."""
        return self.deployment is not None and self.deployment.state is DeploymentState.ACTIVATING

    def sha256s(self) -> frozenset[str]:
        """The files of this name that an application may have open."""
        refs = [self.last_good, self.deployment.artifact if self.deployment else None]
        known = {ref.sha256 for ref in refs if ref is not None}
        return frozenset(known | ({self.active.sha256} if self.active else set()))


def read_views(store: Store, journal: Journal) -> dict[str, ModelView]:
    """Where every model name stands.

    Raises:
        StorageError: A manifest cannot be read.
    """
    return {
        name: ModelView(
            name=name,
            active=_read_active(store, name),
            last_good=row.last_good,
            deployment=DeploymentView(
                deployment_id=row.deployment.deployment_id,
                artifact=row.deployment.artifact,
                state=row.deployment.state,
                error_code=row.deployment.error_code,
                detail=row.deployment.detail,
            )
            if row.deployment is not None
            else None,
        )
        for name, row in journal.status().items()
    }


def _read_active(store: Store, name: str) -> ActiveModel | None:
    slot = store.active(name)
    if slot is None:
        return None
    manifest = slot.manifest
    return ActiveModel(
        artifact=str(slot.ref),
        version=manifest.version,
        sha256=manifest.payload.sha256,
        size_bytes=manifest.payload.length_bytes,
        format=manifest.payload.format,
        runtime=manifest.requirements.runtime,
        path=str(slot.model_path),
        slot_path=str(slot.model_path.resolve()),
    )
