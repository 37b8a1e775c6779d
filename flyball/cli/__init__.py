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
    features,
    get,
    journal,
    lifecycle,
    models,
    privacy,
    project,
    publish,
    quarantine,
    run,
    runs,
    serve,
    sweep,
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
    "features",
    "get",
    "journal",
    "lifecycle",
    "main",
    "models",
    "privacy",
    "project",
    "publish",
    "quarantine",
    "run",
    "runs",
    "serve",
    "sweep",
    "up",
    "webhooks",
]
