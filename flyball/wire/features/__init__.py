"""The feature server: features of entities over HTTP, answered by the data plane's process beside predictions."""
