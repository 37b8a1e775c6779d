"""The controllers of all rooms, and the loop that runs them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

from flyball import settings
from flyball.governance.identity import Principal

if TYPE_CHECKING:
    from flyball.control import Controller
    from flyball.control.loop import Loop

from flyball.platform.feature_rows import FeatureRowActs
from flyball.platform.privacy import PrivacyActs

__all__ = ["LoopActs"]


class LoopActs(PrivacyActs, FeatureRowActs):
    """The controllers of all rooms, and the loop that runs them."""

    def controllers(self) -> list[Controller]:
        """Return the controllers of all rooms over this platform's backends."""
        from flyball.data.products.watching import ProductController
        from flyball.delivery.promotion import PromotionController
        from flyball.features.controller import FeatureViewController
        from flyball.monitoring.monitors import MonitorController
        from flyball.pipelines.controller import PipelineController
        from flyball.pipelines.triggers import TriggerController
        from flyball.privacy.ageing import RetentionController
        from flyball.serving.deployed_features import FeaturesController
        from flyball.serving.deployments import DeploymentController
        from flyball.serving.evidence import TrafficEvidence

        serving = self.home / "serving"
        deployments = DeploymentController(serving, TrafficEvidence(self.traffic, serving / "status.json"))
        return [
            PromotionController(),
            deployments,
            FeatureViewController(self.home, view_command, self._as_controller.view_failed),
            FeaturesController("feature-view", deployments),
            FeaturesController("feature-service", deployments),
            MonitorController(self.traffic, self.datasets, self.monitor_results),
            PipelineController(self.home, worker_command),
            TriggerController(self.traffic),
            ProductController(self.tables),
            RetentionController(self.guard, lambda: self.retention(dry_run=False)),
        ]

    @property
    def _as_controller(self) -> Self:
        return self.as_(Principal("controller/feature-view", "admin"))

    def loop(self) -> Loop:
        """Return the loop that keeps this home as wanted; start it or settle it."""
        from flyball.control.loop import ControlSettings, Loop

        chosen = settings.load(ControlSettings, "control", self.home)
        return Loop(self.ledger, self.controllers(), self.clock, chosen)


def worker_command(home: Path, run: str) -> list[str]:
    """Return the command that executes a pipeline run."""
    return [sys.executable, "-m", "flyball.worker", "--home", str(home), "--run", run]


def view_command(home: Path, view: str, cause: int | None) -> list[str]:
    """Return the command that keeps a feature view up to date, because of an event."""
    command = [sys.executable, "-m", "flyball.worker", "--home", str(home), "--view", view]
    return command if cause is None else [*command, "--cause", str(cause)]
