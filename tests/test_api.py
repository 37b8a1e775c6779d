"""The Python API as a script uses it: in a process of its own, with a home of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FLOWS = """
import flyball as fb


@fb.step
def double(number: int) -> int:
    return 2 * number


@fb.pipeline
def doubled(number: int = 1) -> int:
    return double(double(number))
"""


def script(tmp_path: Path, code: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "flows.py").write_text(FLOWS, encoding="utf-8")
    path = tmp_path / "script.py"
    path.write_text(code, encoding="utf-8")
    environment = {**os.environ, "FLYBALL_HOME": str(tmp_path / "home")}
    return subprocess.run(
        [sys.executable, str(path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_pipeline_runs_here_when_it_is_called_and_in_workers_when_it_is_submitted(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        "import flyball as fb, flows\n"
        "print(flows.doubled(5))\n"
        "run = fb.submit(flows.doubled, number=7)\n"
        "fb.settle(90)\n"
        "found = fb.home().run(run.id)\n"
        "print(found.status, found.result['value'], len(fb.home().runs(parent=run.id)))\n",
    )
    assert done.stdout.split() == ["20", "succeeded", "28", "2"], done.stderr


def test_a_pipeline_of_the_script_itself_is_refused_in_a_sentence(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        "import flyball as fb\n@fb.pipeline\ndef mine(): return 1\n"
        "try: fb.submit(mine)\nexcept fb.FlyballError as error: print(error)\n",
    )
    assert "move it to a file of its own" in done.stdout, done.stderr


def test_an_unknown_name_is_refused_with_the_one_meant(tmp_path: Path) -> None:
    done = script(tmp_path, "import flyball as fb\ntry: fb.datasett\nexcept AttributeError as error: print(error)\n")
    assert 'did you mean "dataset"' in done.stdout, done.stderr


def test_features_of_data_with_purposes_are_deployed_and_looked_up_for_one_of_them(tmp_path: Path) -> None:
    done = script(
        tmp_path,
        "import flyball as fb, polars as pl\n"
        "from datetime import UTC, datetime\n"
        "@fb.feature_view(entity='customer', event_time='at', ttl='30d')\n"
        "def spending(orders):\n"
        "    return orders.select('customer', 'at', spent=pl.col('amount') * 2)\n"
        "orders = fb.dataset('orders', entity=['customer'], event_time='at', purposes=['fraud', 'billing'])\n"
        "orders.publish({'customer': [1], 'at': [datetime.now(UTC)], 'amount': [21]})\n"
        "fb.home().declare_view(spending)\n"
        "fb.home().materialise(spending)\n"
        "def refused(act):\n"
        "    try: act()\n"
        "    except fb.FlyballError as error: print(error)\n"
        "refused(lambda: fb.look_up([spending], customer=1))\n"
        "refused(lambda: fb.look_up([spending], 'marketing', customer=1))\n"
        "print(fb.look_up([spending], 'fraud', customer=1)['spent'])\n"
        "fb.home().declare('model', 'risk')\n"
        "refused(lambda: fb.deploy('risk', features=[spending]))\n"
        "refused(lambda: fb.deploy('risk', features=[spending], purpose='marketing'))\n"
        "service = fb.feature_service('known', [spending])\n"
        "refused(lambda: fb.deploy('risk', service=service))\n"
        "print(len(fb.home().resources('deployment')))\n"
        "import flyball.api\n"
        "flyball.api._wait_for_service = lambda at, name: 'left out'  # no version is registered here\n"
        "fb.deploy('risk', service='known', purpose='fraud', retrain='fit.py:fit')\n"
        "print(fb.home().resource('monitor/risk').spec['purpose'])\n"
        "print(fb.home().resource('pipeline/retrain-risk').spec['params']['purpose'])\n",
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 9, done.stdout + done.stderr
    assert all("pass purpose='fraud'" in lines[at] for at in (0, 3, 5))
    assert all('dataset/orders does not allow reading for "marketing"' in lines[at] for at in (1, 4))
    assert [lines[2], *lines[6:]] == ["42", "0", "fraud", "fraud"]
