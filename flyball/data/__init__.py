"""Data: where it comes from, what it must be like, and what becomes of it when it is not.

    sources      files and frames of any kind → one lazy table
    contracts    an ODCS document → the rules that it makes, every mistake in it refused
    checks/      a file a check: what one rule means, as Polars expressions
    checking     a table and a contract → a report by rule; or the table split into good and bad rows
    inference    a table → a contract that proposes itself

A contract is read once and checked often; it is data, and so are its rules and the report.
"""
