"""Push candidates as versions of one name, and reuse a version that already says the same."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from trimtab_compressor.build import Built
from trimtab_compressor.client import ControlPlane
from trimtab_compressor.evidence import Subject
from trimtab_compressor.package import PackagedArtifact, Provenance, package_model
from trimtab_protocol.budget import Budget
from trimtab_protocol.manifest import ArtifactRef, Manifest
from trimtab_protocol.signing import read_manifest


@dataclass(frozen=True, kw_only=True)
class ArtifactPlan:
    """What all candidates of a fit have in common."""

    name: str
    private_key: bytes
    budgets: Mapping[str, Budget]


def package_built(
    built: Built, subject: Subject, tools: Mapping[str, str], plan: ArtifactPlan, version: int
) -> PackagedArtifact:
    """Package what the builder made.

    Raises:
        ModelError: The file does not run.
    """
    evidence = subject.evidence_in(built.choice.format)
    return package_model(
        built.path,
        name=plan.name,
        version=version,
        recipe=built.choice.recipe,
        private_key=plan.private_key,
        samples=evidence.inputs,
        quality=built.quality,
        base_sha256=built.base_sha256,
        budgets=plan.budgets,
        provenance=Provenance(
            passes=built.passes,
            seed=subject.seed,
            data_sha256=evidence.sha256,
            tools=tools,
            created_at=time.time(),
        ),
    )


def is_same_artifact(one: Manifest, other: Manifest) -> bool:
    """Whether two manifests differ in nothing but their version and their date."""
    return _comparable(one) == _comparable(other)


def _comparable(manifest: Manifest) -> Manifest:
    lineage = manifest.lineage.model_copy(update={"created_at": None})
    return manifest.model_copy(update={"version": 1, "lineage": lineage})


def publish(
    built: Built,
    subject: Subject,
    tools: Mapping[str, str],
    plan: ArtifactPlan,
    plane: ControlPlane,
) -> ArtifactRef:
    """Make a candidate known to the control plane.

    Returns:
        The version that stands for it: an old one if nothing changed, else the next.

    Raises:
        TransientError: The control plane cannot be reached.
        ModelError: The file does not run.
    """
    known = plane.list_artifacts(plan.name)
    draft = package_built(
        built, subject, tools, plan, max((row.ref.version for row in known), default=0) + 1
    )
    key_ids = {row.key_id for row in draft.signed.signatures}
    for row in reversed(known):
        signers = {signature.key_id for signature in row.signed.signatures}
        if key_ids <= signers and is_same_artifact(read_manifest(row.signed), draft.manifest):
            return row.ref
    return plane.push(draft.signed, built.path.read_bytes()).ref
