"""The fixtures of the tests, which the long ones share."""

from __future__ import annotations

from tests.conftest import shared_data

__all__ = ["shared_data"]
