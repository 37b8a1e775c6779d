"""The composition root: settings → backends → `Platform`, and the one table that says who may do what.

Everything that a person or a program can do to Flyball is a method of `Platform`, in the file of its subject here;
`cli`, `web`, `wire` and the Python API only parse, call and show. Only this package chooses backends.
"""

from __future__ import annotations

from flyball.platform.access_keys import AccessKeyActs
from flyball.platform.authority import MAY
from flyball.platform.experiments import ExperimentActs
from flyball.platform.home import KIND_MODULES
from flyball.platform.importing import ImportActs
from flyball.platform.journal import JournalActs
from flyball.platform.logged_models import LoggedModelActs
from flyball.platform.papers import PaperActs
from flyball.platform.receiving import ReceiveActs
from flyball.platform.registry import RegistryActs
from flyball.platform.reproducing import ReproduceActs
from flyball.platform.scoring import ScoringActs
from flyball.platform.supply import SupplyActs
from flyball.platform.sweeping import SweepActs
from flyball.platform.traces import TraceActs
from flyball.platform.tracking import TrackingActs
from flyball.platform.webhooks import WebhookActs

__all__ = ["KIND_MODULES", "MAY", "Platform"]


class Platform(
    ReceiveActs,
    ImportActs,
    ReproduceActs,
    ScoringActs,
    ExperimentActs,
    JournalActs,
    SupplyActs,
    TrackingActs,
    TraceActs,
    LoggedModelActs,
    RegistryActs,
    PaperActs,
    SweepActs,
    WebhookActs,
    AccessKeyActs,
):
    """One home, seen by one principal. Cheap to make for another principal: `platform.as_(principal)`."""
