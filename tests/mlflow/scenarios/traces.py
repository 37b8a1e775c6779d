"""Traces, feedback and prompts; the 3.x line of the client."""

import contextlib
import time

import mlflow
from mlflow import MlflowClient


def _experiment():
    from mlflow.tracking.fluent import _get_experiment_id

    return _get_experiment_id()


def traces(count, **more):
    deadline = time.monotonic() + 20
    while True:
        mlflow.flush_trace_async_logging()
        found = mlflow.search_traces(locations=[_experiment()], return_type="list", **more)
        if len(found) >= count or time.monotonic() > deadline:
            return found


@mlflow.trace(span_type="CHAIN", attributes={"k": "v"})
def outer(question):
    return inner(question.upper()) + "!"


@mlflow.trace
def inner(text):
    with mlflow.start_span("deep", span_type="LLM") as span:
        span.set_inputs({"text": text})
        span.set_attribute("mlflow.chat.tokenUsage", {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7})
        span.set_outputs({"answer": text[::-1]})
    return text[::-1]


def check_a_decorated_function_is_traced():
    assert outer("abc") == "CBA!"
    (found,) = traces(1)
    assert found.info.state == "OK" and found.info.execution_duration is not None
    assert {s.name for s in found.data.spans} == {"outer", "inner", "deep"}
    root = next(s for s in found.data.spans if s.parent_id is None)
    assert root.inputs == {"question": "abc"} and root.outputs == "CBA!"
    assert found.info.token_usage == {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    again = mlflow.get_trace(found.info.trace_id)
    assert again.info.trace_id == found.info.trace_id and len(again.data.spans) == 3


def check_a_failing_function_is_an_error():
    @mlflow.trace
    def breaks():
        raise ValueError("no")

    with contextlib.suppress(ValueError):
        breaks()
    (found,) = traces(1)
    assert found.info.state == "ERROR"
    assert traces(1, filter_string="trace.status = 'ERROR'")[0].info.trace_id == found.info.trace_id
    assert (
        mlflow.search_traces(locations=[_experiment()], filter_string="trace.status = 'OK'", return_type="list") == []
    )


def check_tags_feedback_and_expectations():
    outer("x")
    (found,) = traces(1)
    name = found.info.trace_id
    mlflow.set_trace_tag(name, "team", "a")
    feedback = mlflow.log_feedback(trace_id=name, name="good", value=True, rationale="it was")
    mlflow.log_expectation(trace_id=name, name="answer", value="X!")
    kept = mlflow.get_trace(name).info
    assert kept.tags["team"] == "a"
    assert {a.name: a.value for a in kept.assessments} == {"good": True, "answer": "X!"}
    mlflow.update_assessment(name, feedback.assessment_id, mlflow.entities.Feedback(name="good", value=False))
    assert mlflow.get_assessment(name, feedback.assessment_id).value is False
    mlflow.delete_assessment(name, feedback.assessment_id)
    assert [a.name for a in mlflow.get_trace(name).info.assessments] == ["answer"]
    mlflow.delete_trace_tag(name, "team")
    assert "team" not in mlflow.get_trace(name).info.tags
    assert traces(1, filter_string="expectation.answer = 'X!'")[0].info.trace_id == name
    assert MlflowClient().delete_traces(_experiment(), trace_ids=[name]) == 1
    assert mlflow.search_traces(locations=[_experiment()], return_type="list") == []


def check_traces_of_a_run():
    with mlflow.start_run() as run:
        outer("in a run")
    found = traces(1)
    assert found[0].info.trace_metadata["mlflow.sourceRun"] == run.info.run_id
    assert mlflow.search_traces(locations=[_experiment()], run_id=run.info.run_id, return_type="list")


def check_prompts_are_versioned():
    name = f"greet_{time.time_ns()}"
    first = mlflow.genai.register_prompt(name, "Hello {{who}}", commit_message="first", tags={"lang": "en"})
    mlflow.genai.register_prompt(name, "Good day {{who}}")
    assert first.version == 1
    assert mlflow.genai.load_prompt(name, version=1).format(who="Ada") == "Hello Ada"
    mlflow.genai.set_prompt_alias(name, "live", 2)
    assert mlflow.genai.load_prompt(f"prompts:/{name}@live").template == "Good day {{who}}"
    assert name in [p.name for p in mlflow.genai.search_prompts(f"name = '{name}'")]
    assert name not in [m.name for m in MlflowClient().search_registered_models(max_results=1000)]


def check_evaluation_data_sets():
    made = mlflow.genai.datasets.create_dataset(
        name=f"qa-{time.time_ns()}", experiment_id=[_experiment()], tags={"t": "1"}
    )
    made.merge_records(
        [{"inputs": {"q": "1+1"}, "expectations": {"a": "2"}}, {"inputs": {"q": "2+2"}, "expectations": {"a": "4"}}]
    )
    made.merge_records([{"inputs": {"q": "1+1"}, "expectations": {"a": "two"}}])
    again = mlflow.genai.datasets.get_dataset(dataset_id=made.dataset_id)
    frame = again.to_df()
    assert len(frame) == 2
    assert {r["inputs"]["q"]: r["expectations"]["a"] for r in frame.to_dict("records")} == {"1+1": "two", "2+2": "4"}
    mlflow.genai.datasets.delete_dataset(dataset_id=made.dataset_id)
