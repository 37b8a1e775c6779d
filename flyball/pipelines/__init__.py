"""Pipelines: plain functions whose calls of steps make a graph; run in parallel, cached by content, resumable.

`steps` is what users write with; `graph` holds the calls and the promises of their results; `cache` names what a call
computes; `results` keeps values; `execution` carries a pipeline out over a pool of processes (`tasks` is the far end).
`controller` starts queued runs, `triggers` decides when to queue one.
"""
