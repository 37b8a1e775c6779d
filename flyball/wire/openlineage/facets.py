"""The facets that Flyball writes: small dictionaries, each naming the schema that it follows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flyball.ledger.refs import Ref
from flyball.ledger.resources import Resource
from flyball.ledger.runs import Run
from flyball.ledger.versions import Version

__all__ = ["PRODUCER", "SCHEMA", "dataset_facets", "job_facets", "output_facets", "run_facets"]

PRODUCER = "https://github.com/flyball/flyball"
SCHEMA = "https://openlineage.io/spec/2-0-2/OpenLineage.json"
_FACETS = "https://openlineage.io/spec/facets"
# Facets of our own: what the specification has no word for yet. Other tools keep them or pass over them.
_OWN = f"{PRODUCER}/openlineage/1-0-0"

Facets = dict[str, dict[str, Any]]


def dataset_facets(version: Version, resource: Resource | None, namespace: str) -> Facets:
    """Return what is known of a version: schema, number, where its columns come from, who owns it, what it measured."""
    spec: Mapping[str, Any] = resource.spec if resource else {}
    notes: Mapping[str, Any] = spec.get("columns", {})
    facets: Facets = {
        "version": _facet("1-0-1/DatasetVersionDatasetFacet", datasetVersion=str(version.number)),
        "flyball_digest": _own("DigestDatasetFacet", sha256=version.digest),
    }
    if schema := version.metadata.get("schema"):
        fields = [_named(name=n, type=t, description=notes.get(n, {}).get("description")) for n, t in schema.items()]
        facets["schema"] = _facet("1-2-0/SchemaDatasetFacet", fields=fields)
    if columns := version.metadata.get("columns"):
        facets["columnLineage"] = _facet("1-2-0/ColumnLineageDatasetFacet", fields=_column_lineage(columns, namespace))
    if report := version.metadata.get("contract"):
        facets["dataQualityAssertions"] = _facet(
            "1-1-0/DataQualityAssertionsDatasetFacet",
            assertions=[
                _named(assertion=result["check"], success=result["passed"], column=result["column"])
                for result in report["results"]
            ],
        )
    if text := spec.get("description"):
        facets["documentation"] = _facet("1-1-0/DocumentationDatasetFacet", description=text)
    if owner := spec.get("owner"):
        facets["ownership"] = _facet("1-0-1/OwnershipDatasetFacet", owners=[{"name": owner}])
    if tags := spec.get("tags"):
        pairs = [{"key": tag, "value": "true", "source": "flyball"} for tag in tags]
        facets["tags"] = _facet("1-0-0/TagsDatasetFacet", tags=pairs)
    if version.kind == "model":
        measured = {k: version.metadata[k] for k in ("metrics", "flavor", "trained_on") if k in version.metadata}
        facets["flyball_model"] = _own("ModelDatasetFacet", **measured)
    return facets


def output_facets(version: Version) -> Facets:
    """Return how much was written."""
    kept = {"rowCount": version.metadata.get("rows"), "size": version.metadata.get("size_bytes")}
    if not any(kept.values()):
        return {}
    return {"outputStatistics": _facet("1-0-2/OutputStatisticsOutputDatasetFacet", **_named(**kept))}


def run_facets(run: Run, release: str, parent: tuple[str, str, str] | None = None) -> Facets:
    """Return a run's facets; `parent` is (run id, namespace, job) of the run that contains it."""
    facets: Facets = {
        "processing_engine": _facet("1-1-1/ProcessingEngineRunFacet", version=release, name="flyball"),
    }
    if parent is not None:
        identity, namespace, job = parent
        holder = {"run": {"runId": identity}, "job": {"namespace": namespace, "name": job}}
        facets["parent"] = _facet("1-2-0/ParentRunFacet", **holder)
    if run.error:
        facets["errorMessage"] = _facet("1-0-1/ErrorMessageRunFacet", message=run.error, programmingLanguage="python")
    if run.metrics:
        facets["flyball_metrics"] = _own("MetricsRunFacet", metrics=dict(run.metrics))
    return facets


def job_facets(kind: str, run: Run | None = None, query: str | None = None) -> Facets:
    """Return a job's facets: what sort of job it is, where its code is, the SQL that it runs."""
    word = kind.upper()
    facets: Facets = {
        "jobType": _facet("2-0-4/JobTypeJobFacet", processingType="BATCH", integration="FLYBALL", jobType=word),
    }
    source: Mapping[str, Any] = run.source if run else {}
    if source.get("remote") and source.get("commit"):
        facets["sourceCodeLocation"] = _facet(
            "1-1-0/SourceCodeLocationJobFacet", type="git", url=source["remote"], version=source["commit"]
        )
    if query:
        facets["sql"] = _facet("1-1-0/SQLJobFacet", query=query, dialect="polars")
    return facets


def _column_lineage(columns: Mapping[str, Any], namespace: str) -> dict[str, Any]:
    fields = {}
    for column, origins in columns.items():
        inputs = []
        for source, name, how in origins:
            kind, _, rest = str(source).partition("/")
            of = rest.partition("@")[0] if kind == "dataset" else Ref(kind, rest.partition("@")[0])
            direct = how == "direct"
            way = {"type": "DIRECT", "subtype": "TRANSFORMATION"} if direct else {"type": "INDIRECT"}
            inputs.append({"namespace": namespace, "name": str(of), "field": name, "transformations": [way]})
        fields[column] = {"inputFields": inputs}
    return fields


def _facet(schema: str, **values: Any) -> dict[str, Any]:
    name = schema.partition("/")[2]
    return {"_producer": PRODUCER, "_schemaURL": f"{_FACETS}/{schema}.json#/$defs/{name}", **values}


def _own(name: str, **values: Any) -> dict[str, Any]:
    return {"_producer": PRODUCER, "_schemaURL": f"{_OWN}/{name}.json#/$defs/{name}", **values}


def _named(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
