"""Ask a running MLflow server everything in `asked_of_<nouns>.py` and keep its answers in `data/<nouns>.json`.

mlflow server --port 5731 --backend-store-uri sqlite:///$(mktemp -d)/m.db    # 3.17.2, with nothing in it yet
python -m tests.wire.mlflow.record_answers http://127.0.0.1:5731 runs    # or files, registry, each of a new server
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import httpx2

from tests.wire.mlflow import asked_of_files, asked_of_registry, asked_of_runs, asked_of_traces, asked_of_webhooks
from tests.wire.mlflow.replaying import play

KEPT = Path(__file__).parent / "data"
ASKED = {
    "runs": asked_of_runs.SCENARIOS,
    "files": asked_of_files.SCENARIOS,
    "registry": asked_of_registry.SCENARIOS,
    "traces": asked_of_traces.SCENARIOS,
    "webhooks": asked_of_webhooks.SCENARIOS,
}


def main(address: str, of: str) -> None:
    with httpx2.Client(base_url=address, timeout=60, headers={"connection": "close"}) as client:

        def send(
            verb: str, path: str, query: list[tuple[str, str]], body: bytes | None, headers: dict[str, str]
        ) -> tuple[int, str]:
            answer = client.request(verb, path, params=query, content=body, headers=headers)
            return answer.status_code, answer.text

        version = client.get("/version").text
        answers = {name: list(play(send, steps)) for name, steps in ASKED[of].items()}
    lines = []
    for name, given in answers.items():
        told = ",\n".join("   " + json.dumps(answer, sort_keys=True, ensure_ascii=False) for answer in given)
        lines.append(f"  {json.dumps(name)}: [\n{told}\n  ]")
    KEPT.mkdir(exist_ok=True)
    head = json.dumps(f"MLflow {version}")
    (KEPT / f"{of}.json").write_text(
        f'{{"of": {head}, "answers": {{\n' + ",\n".join(lines) + "\n}}\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main(*sys.argv[1:3])
