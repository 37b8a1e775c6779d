"""Sources: where tables come from. One file a kind; its name is the scheme that users write.

    open_source    what a user has at hand (paths, frames, records) → one lazy table
    read_source    a `Source` and where the last reading ended → the rows since, and where this one ended
    probe          a `Source` → is it there, fresh, and has it the expected columns; before anything is read

    files          this machine: CSV, TSV, Parquet, JSON, NDJSON, Arrow, alone or by glob
    s3             the same in an S3-compatible store
    http           the same at a URL, or the pages of a JSON API
    postgresql, sqlite     a table or a query of a database
    delta          a Delta table
    kafka          a topic of a Kafka cluster

What a kind must answer is in `_protocol`; the other modules that begin with `_` are what the kinds have in common:
texts to bytes to records to types (`_text`, `_records`, `_types`, `_csv`, `_json`), files that fit together
(`_tables`), rows that come only once (`_landing`), watermarks (`_watermarks`), secrets (`_locations`, `_spelling`).
"""

from __future__ import annotations

from flyball.data.sources._layout import FORMATS
from flyball.data.sources._opening import Probe, open_source, probe, read_source
from flyball.data.sources._protocol import Reading, SourceSettings, Watermark

__all__ = ["FORMATS", "Probe", "Reading", "SourceSettings", "Watermark", "open_source", "probe", "read_source"]
