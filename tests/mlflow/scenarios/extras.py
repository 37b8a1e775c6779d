"""What clients do besides: tables, asynchronous logging, uploads in parts, pages; both lines."""

import os
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient


@contextmanager
def environment(**wanted):
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def check_tables_grow_and_are_read_over_many_runs():
    runs = []
    for number in range(2):
        with mlflow.start_run() as run:
            mlflow.log_table({"question": [f"a{number}", "b ✓"], "answer": [1.5, None]}, "tables/eval.json")
            mlflow.log_table(pd.DataFrame({"question": ["c"], "answer": [3.0]}), "tables/eval.json")
        runs.append(run.info.run_id)
    found = mlflow.load_table("tables/eval.json", run_ids=runs, extra_columns=["run_id"])
    assert sorted(found["question"]) == ["a0", "a1", "b ✓", "b ✓", "c", "c"]
    assert set(found["run_id"]) == set(runs)


def check_what_is_logged_asynchronously_is_all_there():
    client = MlflowClient()
    with mlflow.start_run() as run:
        waiting = [mlflow.log_metric("loss", step / 2, step=step, synchronous=False) for step in range(300)]
        waiting += [mlflow.log_params({f"p{n}": n}, synchronous=False) for n in range(20)]
        waiting.append(mlflow.set_tags({"a": "b"}, synchronous=False))
        for one in waiting:
            one.wait()
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(step, step / 2) for step in range(300)]
    found = client.get_run(run.info.run_id).data
    assert len(found.params) == 20 and found.tags["a"] == "b"


def check_asynchronous_logging_by_default_is_flushed_at_the_end_of_the_run():
    mlflow.config.enable_async_logging(True)
    try:
        with mlflow.start_run() as run:
            for step in range(50):
                mlflow.log_metric("auc", step, step=step)
                mlflow.log_param(f"q{step}", step)
        mlflow.flush_async_logging()
    finally:
        mlflow.config.enable_async_logging(False)
    found = MlflowClient().get_run(run.info.run_id).data
    assert found.metrics == {"auc": 49.0} and len(found.params) == 50


def check_threads_of_one_client_log_into_one_run():
    with mlflow.start_run() as run:
        client, failures = MlflowClient(), []

        def work(number):
            try:
                for step in range(25):
                    client.log_metric(run.info.run_id, f"m{number}", step, step=step)
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
    for number in range(8):
        assert len(client.get_metric_history(run.info.run_id, f"m{number}")) == 25


def check_a_large_file_goes_up_and_comes_down_in_parts():
    wanted = {
        "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "true",
        "MLFLOW_ENABLE_MULTIPART_UPLOAD": "true",
        "MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE": "1000000",
        "MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE": "5242880",
    }
    content = np.random.default_rng(3).bytes(12_345_678)
    with environment(**wanted), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large größe.bin"
        path.write_bytes(content)
        with mlflow.start_run() as run:
            mlflow.log_artifact(str(path), "deep/er")
        kept = mlflow.artifacts.download_artifacts(
            run_id=run.info.run_id, artifact_path="deep/er/large größe.bin", dst_path=str(Path(folder) / "back")
        )
        assert Path(kept).read_bytes() == content
    (listed,) = mlflow.artifacts.list_artifacts(run_id=run.info.run_id, artifact_path="deep/er")
    assert (listed.path, listed.file_size) == ("deep/er/large größe.bin", len(content))


def check_folders_texts_and_documents_are_listed_and_read():
    with mlflow.start_run() as run:
        mlflow.log_text("ü\n" * 10, "texts/a.txt")
        mlflow.log_dict({"a": [1, {"b": None}]}, "texts/b.json")
        mlflow.log_dict({"a": 1}, "texts/c.yaml")
        with tempfile.TemporaryDirectory() as folder:
            for name in ("x", "y/z", "y/empty"):
                file = Path(folder) / "tree" / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text("" if name == "y/empty" else name)
            mlflow.log_artifacts(folder)
    base = f"runs:/{run.info.run_id}"
    assert mlflow.artifacts.load_text(f"{base}/texts/a.txt") == "ü\n" * 10
    assert mlflow.artifacts.load_dict(f"{base}/texts/b.json") == {"a": [1, {"b": None}]}
    assert sorted(one.path for one in mlflow.artifacts.list_artifacts(run_id=run.info.run_id)) == ["texts", "tree"]
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(mlflow.artifacts.download_artifacts(artifact_uri=f"{base}/tree", dst_path=folder))
        assert sorted(str(file.relative_to(kept)) for file in kept.rglob("*") if file.is_file()) == [
            *("x", "y/empty", "y/z")
        ]


def check_experiments_are_paged_and_children_found_by_their_parent():
    client = MlflowClient()
    names = {f"paged-{mlflow.__version__}-{number:02d}" for number in range(23)}
    for name in names:
        client.create_experiment(name, tags={"sort": "paged"})
    found, token = [], None
    while True:
        page = client.search_experiments(
            filter_string=f"name LIKE 'paged-{mlflow.__version__}-%'",
            order_by=["name DESC"],
            max_results=5,
            page_token=token,
        )
        found += [experiment.name for experiment in page]
        token = page.token
        if not token:
            break
    assert found == sorted(names, reverse=True)
    with mlflow.start_run() as parent:
        for number in range(7):
            with mlflow.start_run(nested=True, run_name=f"child {number}"):
                mlflow.log_metric("score", number)
    children = mlflow.search_runs(
        filter_string=f"tags.mlflow.parentRunId = '{parent.info.run_id}' and metrics.score >= 2",
        order_by=["metrics.score DESC"],
        output_format="list",
    )
    assert [run.data.metrics["score"] for run in children] == [6, 5, 4, 3, 2]
    assert client.get_parent_run(children[0].info.run_id).info.run_id == parent.info.run_id
