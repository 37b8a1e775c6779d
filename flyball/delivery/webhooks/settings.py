"""Settings of webhooks, with those that people have in the environment for MLflow's server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flyball import settings

__all__ = ["WebhookSettings", "webhook_settings"]

_MLFLOW = {
    "MLFLOW_WEBHOOK_REQUEST_TIMEOUT": "timeout_s",
    "MLFLOW_WEBHOOK_REQUEST_MAX_RETRIES": "retries",
    "MLFLOW_WEBHOOK_DELIVERY_MAX_WORKERS": "workers",
    "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "schemes",
    "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "allow_private",
}


@dataclass(frozen=True)
class WebhookSettings:
    """`[webhooks]` in flyball.toml, `FLYBALL_WEBHOOKS_…` in the environment; MLflow's variables mean the same."""

    schemes: str = "https"  # of addresses, with commas between; add http for receivers in a trusted network
    allow_private: bool = False  # addresses of this machine and of private networks; a door to what stands behind
    timeout_s: float = 30.0  # of one delivery as a whole, the answer included
    retries: int = 15  # after the first attempt; with the delays below about an hour in all
    backoff_s: float = 1.0  # before the first retry; each further one waits twice as long
    backoff_max_s: float = 300.0  # the longest wait, also when a receiver asks for more by Retry-After
    workers: int = 10  # deliveries at the same time; a webhook has one at most
    waiting: int = 10_000  # deliveries of one webhook that may wait; more fail at once and can be sent later by hand
    keep: str = "14d"  # how long deliveries that ended are kept
    poll_s: float = 0.25  # how often the journal is asked for what is new
    source: str = "/flyball"  # the `source` of CloudEvents; another for each home whose events meet

    @property
    def allowed_schemes(self) -> tuple[str, ...]:
        return tuple(scheme.strip().lower() for scheme in self.schemes.split(",") if scheme.strip())


def webhook_settings(home: Path, environ: Mapping[str, str] = os.environ) -> WebhookSettings:
    """Return the settings of a home; our variables win over MLflow's, those over the file.

    Raises:
        InvalidInput: as `settings.load`.
    """
    given = {f"FLYBALL_WEBHOOKS_{ours}".upper(): environ[name] for name, ours in _MLFLOW.items() if name in environ}
    return settings.load(WebhookSettings, "webhooks", home, {**given, **environ})
