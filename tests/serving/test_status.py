"""What holds of several workers: the sum of what they count, and the state of the one that lags."""

from __future__ import annotations

from pathlib import Path

import pytest

from flyball.errors import Corrupt, NotFound
from flyball.serving.status import DataPlaneStatus, DeploymentStatus, joined, read_status

WHOLE = DataPlaneStatus(7, "http://127.0.0.1:7071", "2026-03-04T12:00:00Z", grpc_address="127.0.0.1:7072")


def worker(pid: int, generation: int, requests: int, *served: DeploymentStatus) -> DataPlaneStatus:
    return DataPlaneStatus(
        pid,
        time=f"2026-03-04T12:00:{pid}Z",
        generation=generation,
        deployments=dict(zip(("late", "fraud"), served, strict=False)),
        counters={"requests": requests},
    )


def served(revision: int | None, wanted: int, error: str | None = None, failures: int = 0) -> DeploymentStatus:
    return DeploymentStatus(revision, {"champion": f"late@{revision}"}, wanted, error, None, {"champion": failures})


def test_counts_add_up_and_those_of_workers_that_have_gone_stay() -> None:
    here = {"1": worker(11, 5, 10, served(5, 5, failures=1)), "2": worker(12, 5, 20, served(5, 5, failures=2))}
    found = joined(here, WHOLE, [worker(10, 4, 100, served(4, 4, failures=4))])
    assert found.counters["requests"] == 130
    assert found.deployments["late"].failures == {"champion": 7}
    assert (found.pid, found.address, found.grpc_address) == (7, WHOLE.address, WHOLE.grpc_address)
    assert found.workers == {"1": 11, "2": 12}
    assert found.time == "2026-03-04T12:00:12Z"


def test_snapshot_is_taken_up_when_the_slowest_has() -> None:
    here = {"1": worker(11, 5, 0, served(5, 5)), "2": worker(12, 4, 0, served(4, 4))}
    found = joined(here, WHOLE)
    assert found.generation == 4
    assert found.deployments["late"] == DeploymentStatus(4, {"champion": "late@4"}, 5, None, None, {"champion": 0})


def test_deployment_that_one_worker_refuses_or_lacks_is_not_served_as_wanted() -> None:
    refusing = {"1": worker(11, 5, 0, served(5, 5)), "2": worker(12, 5, 0, served(4, 5, "its bundle is damaged"))}
    found = joined(refusing, WHOLE).deployments["late"]
    assert (found.revision, found.wanted, found.error) == (4, 5, "its bundle is damaged")
    lacking = {"1": worker(11, 5, 0, served(5, 5), served(5, 5)), "2": worker(12, 5, 0, served(5, 5))}
    assert joined(lacking, WHOLE).deployments["fraud"].revision is None
    assert joined(lacking, WHOLE).deployments["late"].revision == 5


def test_document_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "serving" / "status.json"
    with pytest.raises(NotFound):
        read_status(path)
    told = joined({"1": worker(11, 5, 10, served(5, 5))}, WHOLE)
    told.write(path)
    assert read_status(path) == told
    path.write_text("{}")
    with pytest.raises(Corrupt):
        read_status(path)
