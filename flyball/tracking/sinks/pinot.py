"""What Apache Pinot needs to read a deployment's rows from the topic of `sinks.kafka`: schema and realtime table.

Source: docs.pinot.apache.org, "Schema" and "Table" configuration references, "Stream ingestion". Rows that a crash
sent twice count once: the table is of the kind that upserts, by `id` and `variant`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flyball.tracking.sinks import column_name

if TYPE_CHECKING:
    import polars as pl

__all__ = ["schema", "table"]

_MEASURED = ("latency_us",)


def schema(name: str, columns: Mapping[str, pl.DataType]) -> dict[str, Any]:
    """Return the schema of a table for rows with these columns (as of `tracking.traffic`)."""
    dimensions: list[dict[str, Any]] = []
    metrics: list[dict[str, Any]] = []
    for column, dtype in columns.items():
        if column == "at":
            continue
        found = {"name": column_name(column), "dataType": _type(dtype)}
        is_metric = column in _MEASURED or (column.startswith("output.") and dtype.is_float())
        (metrics if is_metric else dimensions).append(found)
    time = {
        "name": "at",
        "dataType": "TIMESTAMP",
        "format": "1:MILLISECONDS:TIMESTAMP",
        "granularity": "1:MILLISECONDS",
    }
    return {
        "schemaName": name,
        "enableColumnBasedNullHandling": True,
        "primaryKeyColumns": ["id", "variant"],
        "dimensionFieldSpecs": dimensions,
        "metricFieldSpecs": metrics,
        "dateTimeFieldSpecs": [time],
    }


def table(name: str, deployment: str, brokers: str, topic: str, keep_days: int = 30) -> dict[str, Any]:
    """Return the realtime table of that schema, fed by a topic of Kafka with the rows of all deployments."""
    stream = {
        "streamType": "kafka",
        "stream.kafka.topic.name": topic,
        "stream.kafka.broker.list": brokers,
        "stream.kafka.consumer.type": "lowlevel",
        "stream.kafka.consumer.factory.class.name": "org.apache.pinot.plugin.stream.kafka20.KafkaConsumerFactory",
        "stream.kafka.decoder.class.name": "org.apache.pinot.plugin.stream.kafka.KafkaJSONMessageDecoder",
        "stream.kafka.consumer.prop.auto.offset.reset": "smallest",
        "realtime.segment.flush.threshold.rows": "0",
        "realtime.segment.flush.threshold.segment.size": "200M",
    }
    quoted = deployment.replace("'", "''")
    return {
        "tableName": name,
        "tableType": "REALTIME",
        "segmentsConfig": {
            "timeColumnName": "at",
            "schemaName": name,
            "replication": "1",
            "retentionTimeUnit": "DAYS",
            "retentionTimeValue": str(keep_days),
        },
        "tableIndexConfig": {
            "loadMode": "MMAP",
            "nullHandlingEnabled": True,
            "invertedIndexColumns": ["version", "variant"],
            "rangeIndexColumns": ["at"],
            "bloomFilterColumns": ["id"],
        },
        "routing": {"instanceSelectorType": "strictReplicaGroup"},
        "upsertConfig": {"mode": "FULL"},
        "ingestionConfig": {
            "streamIngestionConfig": {"streamConfigMaps": [stream]},
            "filterConfig": {"filterFunction": f"deployment != '{quoted}'"},
        },
        "tenants": {},
        "metadata": {},
    }


def _type(dtype: pl.DataType) -> str:
    if dtype.is_integer():
        return "LONG"
    if dtype.is_float():
        return "DOUBLE"
    return "BOOLEAN" if str(dtype) == "Boolean" else "STRING"
