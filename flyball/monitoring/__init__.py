"""Monitors watch live traffic; what they find becomes conditions that triggers act on, and alerts that people see."""
