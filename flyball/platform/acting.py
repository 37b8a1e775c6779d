"""The controllers of all rooms, and the loop that runs them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

from flyball import settings
from flyball.errors import Forbidden
from flyball.governance.identity import Principal
from flyball.ledger.refs import Ref

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flyball.control import Controller
    from flyball.control.loop import Loop
    from flyball.monitoring.monitors import MonitorController

from flyball.platform.feature_rows import FeatureRowActs
from flyball.platform.lifecycle import Known
from flyball.platform.privacy import PrivacyActs

__all__ = ["LoopActs"]


class LoopActs(PrivacyActs, FeatureRowActs):
    """The controllers of all rooms, and the loop that runs them."""

    def controllers(self) -> list[Controller]:
        """Return the controllers of all rooms over this platform's backends."""
        from flyball.data.products.watching import ProductController
        from flyball.delivery.promotion import PromotionController
        from flyball.features.controller import FeatureViewController
        from flyball.monitoring.features import FeatureAlertController
        from flyball.pipelines.controller import PipelineController
        from flyball.pipelines.triggers import TriggerController
        from flyball.privacy.ageing import RetentionController
        from flyball.serving.calling_keys import KeysController
        from flyball.serving.deployed_features import FeaturesController
        from flyball.serving.deployments import DeploymentController
        from flyball.serving.evidence import TrafficEvidence

        serving = self.home / "serving"
        evidence = TrafficEvidence(self.traffic, serving / "status.json")
        deployments = DeploymentController(serving, evidence, self._as("deployment").bundled, self.guard.protected)
        return [
            PromotionController(Known(self.blobs, self.home, self.project)),
            deployments,
            FeatureViewController(self.home, view_command, self._as("feature-view").view_failed),
            FeatureAlertController(),
            KeysController(deployments),
            FeaturesController("feature-view", deployments),
            FeaturesController("feature-service", deployments),
            self.monitor_controller(),
            PipelineController(self.home, worker_command),
            TriggerController(self.traffic),
            ProductController(self.tables),
            RetentionController(self.guard, lambda: self.retention(dry_run=False)),
        ]

    def monitor_controller(self) -> MonitorController:
        """Return the controller of monitors; what it looks at is asked and noted in its own name."""
        from flyball.monitoring.monitors import MonitorController

        return MonitorController(self.traffic, self.blobs, self.monitor_results, self._as("monitor").looked_at)

    def looked_at(self, version: Ref, columns: Sequence[str], purpose: str | None = None) -> dict[str, str]:
        """Note that some columns of a version are looked at otherwise than by rows, by what was kept of them.

        Returns:
            The columns that whoever asks may not see as they are, each with who says so; those are not noted.

        Raises:
            Forbidden: as `frame`.
        """
        self._may("read")
        self.products.check_read(version)
        dataset, made_of = self._behind(version)
        found = self.guard.decision(dataset, columns, self.principal, purpose, made_of)
        if not found.allowed:
            raise Forbidden(found.reason)
        hidden = {name.partition(".")[0]: mask.because for name, mask in found.masks.items()}
        hidden = {name: who for name, who in hidden.items() if name in columns}
        seen = [name for name in columns if name not in hidden]
        if seen:
            self.usage.record(self.actor, version, purpose or "", seen)
        return hidden

    def _as(self, kind: str) -> Self:
        """Return this home as the controller of a kind sees it."""
        other = self.as_(Principal(f"controller/{kind}", "admin"))
        other.__dict__["usage"] = self.usage  # one log of reads in a process, whoever made it first
        return other

    def loop(self) -> Loop:
        """Return the loop that keeps this home as wanted; start it or settle it."""
        from flyball.control.loop import ControlSettings, Loop

        chosen = settings.load(ControlSettings, "control", self.home)
        return Loop(self.ledger, self.controllers, self.clock, chosen)


def worker_command(home: Path, run: str) -> list[str]:
    """Return the command that executes a pipeline run."""
    return [sys.executable, "-m", "flyball.worker", "--home", str(home), "--run", run]


def view_command(home: Path, view: str, cause: int | None) -> list[str]:
    """Return the command that keeps a feature view up to date, because of an event."""
    command = [sys.executable, "-m", "flyball.worker", "--home", str(home), "--view", view]
    return command if cause is None else [*command, "--cause", str(cause)]
