"""Flyball's own JSON API under `/api`, and what else the control plane answers: `/health`, `/metrics`."""
