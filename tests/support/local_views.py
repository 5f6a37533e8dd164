"""What applications see, made for tests of the API alone."""

from __future__ import annotations

from trimtab_agent.local.views import ActiveModel, DeploymentView, ModelView
from trimtab_protocol.lifecycle import DeploymentState
from trimtab_protocol.manifest import ArtifactRef, ModelFormat, RuntimeName

SHA = {1: "1" * 64, 2: "2" * 64, 3: "3" * 64}


def a_view(version: int = 1, name: str = "digits") -> ModelView:
    """A name at a version, with the one before as its last good."""
    return ModelView(
        name=name,
        active=ActiveModel(
            artifact=f"{name}@{version}",
            version=version,
            sha256=SHA[version],
            size_bytes=1000,
            format=ModelFormat.ONNX,
            runtime=RuntimeName.ONNXRUNTIME,
            path=f"/state/models/{name}/active/model.onnx",
            slot_path=f"/state/slots/{name}/{version}/model.onnx",
        ),
        last_good=ArtifactRef(name=name, version=version - 1, sha256=SHA[version - 1])
        if version > 1
        else None,
        deployment=DeploymentView(
            deployment_id="d1",
            artifact=None,
            state=DeploymentState.COMMITTED,
            error_code=None,
            detail="",
        ),
    )
