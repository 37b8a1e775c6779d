"""Who may do what: the lowest role that each act of the platform needs. The one such table."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["MAY"]

MAY: Mapping[str, str] = {
    "read": "viewer",
    "predict": "operator",
    "label": "operator",
    "rollback": "operator",
    "silence": "operator",
    "start": "operator",
    "materialise": "operator",
    "publish": "editor",
    "record": "editor",
    "register": "editor",
    "sign": "editor",
    "push": "editor",
    "apply": "editor",
    "delete": "editor",
    "approve": "editor",
    "promote": "editor",
    "write": "editor",
    "bundle": "viewer",  # a version stays what it is; its files are only brought into the form that is loaded
    "review": "viewer",  # whom a stage lets decide, its approvers say
    "admit": "admin",  # who may come in: access keys
    "erase": "admin",
    "trust": "admin",
}
