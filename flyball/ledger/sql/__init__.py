"""The ledger over SQL: SQLite (WAL) in the home by default, PostgreSQL by one setting, the same code for both."""

from flyball.ledger.sql.database import LedgerSettings, open_ledger

__all__ = ["LedgerSettings", "open_ledger"]
