"""What is served, told in the protocol's words: server, models, repository, statistics, configuration.

REST sends these values as JSON, gRPC as messages. Statistics, configuration and repository are Triton's extensions,
which its clients call; what the data plane does not measure is left out rather than given as 0.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from flyball.errors import Conflict, InvalidInput
from flyball.models.fields import Field
from flyball.serving.lineup import Served, ServedVariant
from flyball.serving.service import Service

__all__ = [
    "check_load",
    "configuration",
    "index",
    "metadata",
    "refuse_unload",
    "server_metadata",
    "statistics",
    "wanted",
]

_EXTENSIONS = ["binary_tensor_data", "model_configuration", "model_repository", "parameters", "statistics"]


def server_metadata() -> dict[str, Any]:
    """Return name, version and extensions of this server."""
    return {"name": "flyball", "version": _release(), "extensions": list(_EXTENSIONS)}


def wanted(service: Service, name: str, version: str | None) -> tuple[Served, ServedVariant]:
    """Return a deployment and its variant of a version, the champion when none is named.

    Raises:
        NotFound: no such deployment, or none of its variants serves that version.
    """
    served = service.engine.lineup.find(name)
    return served, served.variants[0] if version is None else served.of_version(version)


def metadata(service: Service, name: str, version: str | None) -> dict[str, Any]:
    """Return a model's metadata. Raises NotFound."""
    served, by = wanted(service, name, version)
    return {
        "name": served.name,
        "versions": list(dict.fromkeys(v.variant.version for v in served.variants)),
        "platform": _platform(by),
        "inputs": [_described(f) for f in _inputs(by)],
        "outputs": [_described(f) for f in by.model.signature.outputs],
    }


def configuration(service: Service, name: str, version: str | None) -> dict[str, Any]:
    """Return a model's configuration as Triton words it: `max_batch_size` 0, so that `dims` are whole shapes.

    Raises:
        NotFound: as `wanted`.
    """
    served, by = wanted(service, name, version)
    return {
        "name": served.name,
        "platform": _platform(by),
        "backend": "flyball",
        "max_batch_size": 0,
        "input": [_configured(f) for f in _inputs(by)],
        "output": [_configured(f) for f in by.model.signature.outputs],
    }


def index(service: Service, is_only_ready: bool) -> list[dict[str, str]]:
    """Return every version that is served, and every deployment that is not, with the reason."""
    lineup = service.engine.lineup
    rows = [
        {"name": name, "version": v.variant.version, "state": "READY", "reason": ""}
        for name, served in sorted(lineup.served.items())
        for v in served.variants
    ]
    if not is_only_ready:
        rows += [
            {"name": name, "version": "", "state": "UNAVAILABLE", "reason": refusal.message}
            for name, refusal in sorted(lineup.errors.items())
            if name not in lineup.served
        ]
    return rows


def statistics(service: Service, name: str = "", version: str | None = None) -> list[dict[str, Any]]:
    """Return what was answered since the start, for each version of one deployment or of all.

    `inference_count` counts rows, `execution_count` calls of the model. Durations are in ns, from a request's last byte
    to its answer, of all requests to the variant that now serves the version.

    Raises:
        NotFound: as `wanted`.
    """
    lineup = service.engine.lineup
    if name:
        served, by = wanted(service, name, version)
        chosen = [(served, v) for v in served.variants] if version is None else [(served, by)]
    else:
        chosen = [(served, v) for _, served in sorted(lineup.served.items()) for v in served.variants]
    return [_counted(service, served.name, v) for served, v in chosen]


def check_load(service: Service, name: str, parameters: Any) -> None:
    """Answer a call to load a model: it succeeds when the model is served, for deployments say what is loaded.

    Raises:
        NotFound: it is not served; says why.
        InvalidInput: the call brings a configuration or files of its own.
    """
    if isinstance(parameters, dict) and parameters.keys() - {"unload_dependents"}:
        raise InvalidInput(
            f"{name} cannot be loaded with a configuration or files of the call; declare deployment/{name} and apply it"
        )
    service.engine.lineup.find(name)


def refuse_unload(service: Service, name: str) -> Conflict:
    """Return why a model is not unloaded by a call. Raises NotFound when it is not served at all."""
    service.engine.lineup.find(name)
    return Conflict(
        f"deployment/{name} is declared, so its model stays loaded; remove it with: flyball delete deployment/{name}"
    )


def _counted(service: Service, name: str, by: ServedVariant) -> dict[str, Any]:
    variant, counters = by.variant, service.counters
    key = (name, variant.name, variant.version)
    latency, batches = counters.latency.get(key), counters.batches.get(variant.version)
    answered = sum(latency.counts) if latency else 0
    return {
        "name": name,
        "version": variant.version,
        "inference_count": counters.rows.get(key, 0),
        "execution_count": sum(batches.counts) if batches else 0,
        "inference_stats": {
            "success": {"count": answered, "ns": int(latency.total * 1e9) if latency else 0},
            "fail": {"count": counters.failures.get(key, 0), "ns": 0},
        },
        "batch_stats": [],
    }


def _inputs(by: ServedVariant) -> list[Field]:
    """Return what a request gives: inputs of the model, and keys by which features are looked up (optional)."""
    given = list(by.request.inputs) if by.request else []
    return given + [Field(key, "string", nullable=True) for key in by.keys if key in by.extra]


def _described(field: Field) -> dict[str, Any]:
    return {"name": field.name, "datatype": field.oip_datatype, "shape": list(field.oip_shape)}


def _configured(field: Field) -> dict[str, Any]:
    datatype = "STRING" if field.oip_datatype == "BYTES" else field.oip_datatype
    return {"name": field.name, "data_type": f"TYPE_{datatype}", "dims": list(field.oip_shape)}


def _platform(by: ServedVariant) -> str:
    return f"flyball_{by.model.bundle.manifest['flavor']}"


@cache
def _release() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("flyball")
    except PackageNotFoundError:
        return "0"
