"""The command line: a command parses, calls the platform and prints; it decides nothing.

`app.py` holds what all commands share; each other module is a group of commands. Nothing heavy is imported before a
command needs it, so that `flyball --help` answers at once.
"""

from flyball.cli import (
    catalogue,
    contract,
    data,
    demo,
    describe,
    experiments,
    features,
    get,
    journal,
    keys,
    lifecycle,
    models,
    privacy,
    project,
    publish,
    quarantine,
    run,
    runs,
    scaling,
    scoring,
    serve,
    sweep,
    traffic,
    up,
    webhooks,
)
from flyball.cli.app import app, main

__all__ = [
    "app",
    "catalogue",
    "contract",
    "data",
    "demo",
    "describe",
    "experiments",
    "features",
    "get",
    "journal",
    "keys",
    "lifecycle",
    "main",
    "models",
    "privacy",
    "project",
    "publish",
    "quarantine",
    "run",
    "runs",
    "scaling",
    "scoring",
    "serve",
    "sweep",
    "traffic",
    "up",
    "webhooks",
]
