"""Writes the tables in `data/` that tests compare with: what MLflow's own parser and store answer.

Run by hand with a Python that has MLflow 3.17 (`python tests/tracking/record_mlflow.py`); tests read the tables only.
The filters and orders to ask about are those of the table: to add one, add the row `["runs", "the filter"]` and run it.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunStatus, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as RegistryStore
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils import search_utils as of
from mlflow.utils.search_logged_model_utils import parse_filter_string

DATA = Path(__file__).parent / "data"
RUNS, QUERIES = 80, 400
START = 1_700_000_000_000
NUMERIC = ["=", "!=", ">", ">=", "<", "<="]
TEXTUAL = ["=", "!=", "LIKE", "ILIKE"]
METRICS = ["metrics.loss", "metrics.`val loss`", "metrics.only_some", "metrics.absent"]
KEYED = ["params.lr", "params.opt", "params.`a b`", "tags.team", "tags.`note.long`", "tags.absent"]
TIMES, TEXTS = ["start_time", "end_time"], ["run_name", "user_id", "status"]
DATASETS = [("name", "'iris'"), ("name", "'i%'"), ("digest", "'d1'"), ("context", "'train'"), ("context", "'eval'")]
VALUES = [
    "'x'", "'X'", "''", "'0.1'", "'adam'", "'a%'", "'%A%'", "'_'", "'%_1'", "'100%'", "'日本%'", "'alpha'", "\"it's\"",
    "'ß'", "'FINISHED'", "'B%'",
]  # fmt: skip


def main() -> None:
    """Write both tables."""
    with tempfile.TemporaryDirectory() as folder:
        store = SqlAlchemyStore(f"sqlite:///{folder}/m.db", f"{folder}/artifacts")
        write_grammar(store, RegistryStore(f"sqlite:///{folder}/m.db"))
        write_searches(store)


def write_grammar(store: SqlAlchemyStore, registry: RegistryStore) -> None:
    """Write which of the table's filters and orders each entity takes, as what."""
    search: dict[str, Callable[[str, Any], Any]] = {
        "runs": lambda f, o: store._search_runs(["0"], f, ViewType.ACTIVE_ONLY, 1, o, None),
        "experiments": lambda f, o: store.search_experiments(ViewType.ACTIVE_ONLY, 1, f, o),
        "registered_models": lambda f, o: registry.search_registered_models(f, 1, o),
        "model_versions": lambda f, o: registry.search_model_versions(f, 1, o),
        "logged_models": lambda f, o: store.search_logged_models(["0"], f, None, 1, o),
        "traces": lambda f, o: store.search_traces(filter_string=f, max_results=1, order_by=o, locations=["0"]),
        "evaluation_datasets": lambda f, o: store.search_datasets(["0"], f, 1, o),
    }
    parse: dict[str, Callable[[str], Any]] = {
        "runs": of.SearchUtils.parse_search_filter,
        "experiments": of.SearchExperimentsUtils.parse_search_filter,
        "registered_models": of.SearchModelUtils.parse_search_filter,
        "model_versions": of.SearchModelVersionUtils.parse_search_filter,
        "logged_models": lambda f: [
            {"type": c.entity.type.value, "key": c.entity.key, "comparator": c.op, "value": c.value}
            for c in parse_filter_string(f)
        ],
        "traces": of.SearchTraceUtils.parse_search_filter_for_search_traces,
        "evaluation_datasets": of.SearchEvaluationDatasetsUtils.parse_search_filter,
    }
    asked = json.loads((DATA / "mlflow_filters.json").read_text(encoding="utf-8"))
    filters = []
    for entity, text, *_ in asked["filters"]:
        refusal = refusal_of(partial(search[entity], text, None))
        parsed = None if refusal else [[p["type"], p["key"], p["comparator"], p["value"]] for p in parse[entity](text)]
        filters.append([entity, text, parsed, refusal])
    orders = [[entity, text, refusal_of(partial(search[entity], "", [text]))] for entity, text, *_ in asked["orders"]]
    write("mlflow_filters.json", {"mlflow": mlflow.__version__}, filters=filters, orders=orders)


def refusal_of(act: Callable[[], Any]) -> str | None:
    """Return how an act is refused, None when it is not; sets that a sentence lists come in any order, so it is cut."""
    try:
        act()
    except MlflowException as error:
        return str(error.message).split("{")[0].split(" object at")[0][:60]
    except Exception as error:  # a wart of MLflow's: its server answers 500
        return type(error).__name__
    return None


def write_searches(store: SqlAlchemyStore) -> None:
    """Write runs, and what searches among them answer: the numbers of the runs."""
    chance = random.Random(7)
    experiment = store.create_experiment("searched")
    runs = [make_run(store, experiment, chance, number) for number in range(RUNS)]
    number_of = {run["id"]: number for number, run in enumerate(runs)}
    queries = []
    for text, order, view in queries_of(chance, list(number_of)):
        found, _ = store._search_runs([experiment], text, view, RUNS, order, None)
        queries.append([text, order, ViewType.to_string(view), [number_of[run.info.run_id] for run in found]])
    write("mlflow_searches.json", {"mlflow": mlflow.__version__}, runs=runs, queries=queries)


def make_run(store: SqlAlchemyStore, experiment: str, chance: random.Random, number: int) -> dict[str, Any]:
    """Make a run in the store and return what it holds."""
    start = START + chance.choice([0, 0, 1, 500, number * 1000])
    name = chance.choice(["alpha", "Alpha", "beta_1", "beta%", "日本", "it's"])
    run_id = store.create_run(experiment, chance.choice(["ann", "bob", "Zoë"]), start, [], name).info.run_id
    numbers = ["NaN", "inf", "-inf", -1.5, 0.0, -0.0, 0.25, 0.25, 0.5, 1e-300, 3]
    points = [
        Metric(key, float(chance.choice(numbers)), 1000 + chance.randrange(3), step)
        for key, share in (("loss", 0.8), ("val loss", 0.8), ("only_some", 0.3))
        if chance.random() < share
        for step in range(chance.choice([1, 1, 3]))
    ]
    values = ["0.1", "0.01", "adam", "Adam", "", "100%", "a_b", "ß", "zz"]
    params = {key: chance.choice(values) for key in ("lr", "opt", "a b") if chance.random() < 0.7}
    words = ["x", "X", "y", "", "日本語", "a'b"]
    tags = {key: chance.choice(words) for key in ("team", "note.long") if chance.random() < 0.6}
    store.log_batch(run_id, points, [Param(*p) for p in params.items()], [RunTag(*t) for t in tags.items()])
    datasets = [
        [name, chance.choice(["d1", "d2"]), chance.choice(["train", "eval", None])]
        for name in ("iris", "flights")
        if chance.random() < 0.4
    ]
    inputs = [
        DatasetInput(Dataset(n, d, "local", "{}"), [InputTag("mlflow.data.context", c)] if c else [])
        for n, d, c in datasets
    ]
    store.log_inputs(run_id, inputs)
    status = chance.choice(["RUNNING", "FINISHED", "FAILED", "KILLED"])
    end = None if status == "RUNNING" else start + chance.choice([0, 10, 5000])
    store.update_run_info(run_id, RunStatus.from_string(status), end, None)
    is_deleted = chance.random() < 0.15
    if is_deleted:
        store.delete_run(run_id)
    run = store.get_run(run_id)
    latest = {m.key: [m.value if m.value == m.value else "NaN", m.step, m.timestamp] for m in run.data._metric_objs}
    return {
        "id": run_id, "name": name, "user": run.info.user_id, "status": status, "start": start,
        "end": run.info.end_time, "deleted": is_deleted, "params": params, "tags": run.data.tags, "metrics": latest,
        "datasets": datasets,
    }  # fmt: skip


def queries_of(chance: random.Random, ids: list[str]) -> Iterator[tuple[str, list[str], int]]:
    """Yield filters with orders and views."""
    orders = [*METRICS, "params.lr", "params.`a b`", "tags.team", *TIMES, *TEXTS, "run_id"]
    views = [ViewType.ACTIVE_ONLY, ViewType.ALL, ViewType.DELETED_ONLY]
    for number in range(QUERIES):
        text = " AND ".join(clause(chance, ids) for _ in range(chance.choice([0, 1, 1, 2, 3])))
        some = chance.sample(orders, chance.choice([0, 1, 1, 2]))
        yield text, [f"{key} {chance.choice(['ASC', 'DESC'])}" for key in some], views[number % 5 % 3]


def clause(chance: random.Random, ids: list[str]) -> str:
    """Return one comparison."""
    kind, operator = chance.randrange(6), chance.choice(TEXTUAL)
    if kind == 0:
        numbers = ["0", "0.25", "-1.5", "0.3", "1e-300", "1e308", "-1e309"]
        return f"{chance.choice(METRICS)} {chance.choice(NUMERIC)} {chance.choice(numbers)}"
    if kind == 1:
        is_missing = chance.choice([None, None, "IS NULL", "IS NOT NULL"])
        return f"{chance.choice(KEYED)} {is_missing or f'{operator} {chance.choice(VALUES)}'}"
    if kind == 2:
        return f"{chance.choice(TIMES)} {chance.choice(NUMERIC)} {START + chance.choice([0, 1, 500, 7000, 40000])}"
    if kind == 3:
        return f"{chance.choice(TEXTS)} {operator} {chance.choice(VALUES)}"
    if kind == 4:
        some = chance.choice([f"'{ids[0]}', '{ids[5]}'", f"'{ids[3]}'", "'none'"])
        return f"run_id {chance.choice(['IN', 'NOT IN'])} ({some})"
    key, value = chance.choice(DATASETS)
    return f"datasets.{key} {operator} {value}"


def write(name: str, head: dict[str, Any], **tables: list[Any]) -> None:
    """Write tables as JSON, a row a line."""
    parts = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    for key, rows in tables.items():
        lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        parts.append(f"{json.dumps(key)}: [\n{lines}\n]")
    (DATA / name).write_text("{" + ",\n".join(parts) + "}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
