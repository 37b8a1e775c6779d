"""Make data/stores: what the real MLflow writes, to be imported. Run with the Python of an environment that has MLflow.

    python tests/tracking/make_mlflow_stores.py files   a folder of the file store (MLflow 2)
    python tests/tracking/make_mlflow_stores.py sqlite  a SQLite database with its folder of artifacts (MLflow 2 or 3)

Each becomes one archive, data/stores/<what><major version>.tar.gz, with paths that begin at /store.
"""

import io
import os
import sqlite3
import sys
import tarfile
import tempfile
from pathlib import Path

os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
import mlflow
from mlflow.tracking import MlflowClient

DATA = Path(__file__).resolve().parent / "data" / "stores"


def fill(artifacts: str) -> None:
    """Write two experiments, some runs of all states, and a registered model."""
    client = MlflowClient()
    flights = client.create_experiment(
        "flights", artifact_location=f"{artifacts}/flights", tags={"team": "späte Flüge"}
    )
    gone = client.create_experiment("gone", artifact_location=f"{artifacts}/gone")
    client.create_run(gone)
    client.delete_experiment(gone)
    mlflow.set_experiment("flights")
    with mlflow.start_run(run_name="first", tags={"kind": "baseline"}, description="what it is") as run:
        mlflow.log_params({"depth": 6, "path/with": "x = 1\ny = 2", "empty": ""})
        for step in range(50):
            client.log_metric(run.info.run_id, "train/loss", 1 / (step + 1), 1_700_000_000_000 + step, step)
        client.log_metric(run.info.run_id, "odd", float("nan"), 1_700_000_000_000, 0)
        client.log_metric(run.info.run_id, "odd", float("inf"), 1_700_000_000_001, -1)
        client.log_metric(run.info.run_id, "odd", float("-inf"), 1_700_000_000_002, 3)
        mlflow.log_text("größer", "notes/grüße.txt")
        mlflow.log_dict({"a": [1]}, "a.json")
        import pandas

        frame = mlflow.data.from_pandas(pandas.DataFrame({"x": [1.0, 2.0]}), name="rows")
        mlflow.log_input(frame, context="training")
        with mlflow.start_run(nested=True, run_name="child"):
            mlflow.log_metric("acc", 0.5)
    try:
        with mlflow.start_run(run_name="broken"):
            raise RuntimeError("as planned")
    except RuntimeError:
        pass
    deleted = client.create_run(flights, run_name="deleted")
    client.delete_run(deleted.info.run_id)
    client.create_run("0", run_name="still running", tags={"mlflow.user": "ada"})
    client.create_registered_model("late", tags={"team": "a"}, description="who is late")
    for number in (1, 2):
        client.create_model_version("late", f"runs:/{run.info.run_id}/notes", run.info.run_id, tags={"n": str(number)})
    client.set_registered_model_alias("late", "champion", 2)
    client.transition_model_version_stage("late", "1", "Staging")


def main() -> None:
    """Write the archive that is asked for."""
    what = sys.argv[1]
    sys.argv = ["train.py"]  # what the runs say they were started by
    major = mlflow.__version__.partition(".")[0]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "store"
        root.mkdir()
        if what == "files":
            mlflow.set_tracking_uri((root / "mlruns").as_uri())
        else:
            mlflow.set_tracking_uri(f"sqlite:///{root}/mlflow.db")
        fill((root / "artifacts").as_uri())
        for path in [*root.rglob("*.yaml"), *root.rglob("*.yml")]:
            path.write_text(path.read_text(encoding="utf-8").replace(str(root), "/store"), encoding="utf-8")
        if what == "sqlite":
            database = sqlite3.connect(root / "mlflow.db")
            for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
                database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, '/store')", (str(root),))
            used = {"experiments", "runs", "metrics", "params", "tags", "datasets", "inputs", "alembic_version"}
            used |= {"input_tags", "experiment_tags", "latest_metrics"}
            tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for table in tables:  # those of other features are empty, and only weigh
                is_ours = table in used or table.startswith(("registered_model", "model_version"))
                if not is_ours and not table.startswith("sqlite_"):
                    database.execute(f'DROP TABLE "{table}"')
            database.commit()
            database.execute("VACUUM")
            database.close()
        DATA.mkdir(parents=True, exist_ok=True)
        kept = io.BytesIO()
        with tarfile.open(fileobj=kept, mode="w:gz") as archive:
            archive.add(root, "store")
        (DATA / f"{what}{major}.tar.gz").write_bytes(kept.getvalue())


if __name__ == "__main__":
    main()
