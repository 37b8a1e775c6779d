"""Where bytes and rows are: blobs by content, tables by version, online values by key, streams by position."""
