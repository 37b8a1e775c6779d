"""More models than the memory budget: the longest unused go, come back when asked, and never hold up the loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression

from flyball.models import bundle
from flyball.serving.engine import Engine
from flyball.serving.questions import Question
from flyball.serving.residence import Residence
from flyball.serving.service import Service
from flyball.serving.snapshot import ServedDeployment, Snapshot, Variant, write
from flyball.storage.blobs.files import FileBlobs

ROW = {"a": 0.5, "b": -1.0}
MODELS = 4


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[FileBlobs, list[str], list[float]]:
    blobs = FileBlobs(tmp_path_factory.mktemp("models") / "blobs")
    digests, wanted = [], []
    for seed in range(MODELS):
        rows = np.random.default_rng(seed).normal(size=(60, 2))
        frame = pl.DataFrame(rows, schema=["a", "b"])
        model = LogisticRegression().fit(frame, (rows[:, 0] * (seed + 1) > rows[:, 1]).astype(int))
        digests.append(bundle.save(blobs, model, example=frame[:2]).digest)
        wanted.append(model.predict_proba(pl.DataFrame([ROW]))[0, 1])
    return blobs, digests, wanted


def test_the_longest_unused_models_go_and_the_one_in_use_stays_however_large(made: Any) -> None:
    blobs, digests, _ = made
    held = Residence(0, lambda digest: bundle.load(blobs, digest))
    models = [held(digest) for digest in digests]
    assert list(held.taken()) == digests[-1:] and held.loads == MODELS
    models[0].warm_up()
    assert list(held.taken()) == digests[:1] and held.loads == MODELS + 1

    roomy = Residence(1 << 40, lambda digest: bundle.load(blobs, digest))
    models = [roomy(digest) for digest in digests]
    models[0].warm_up()
    assert list(roomy.taken()) == [*digests[1:], digests[0]] and roomy.loads == MODELS
    assert all(size > 0 for size in roomy.taken().values())
    roomy.keep(digests[:1])
    assert list(roomy.taken()) == digests[:1]


def test_many_threads_that_ask_more_models_than_fit_are_all_answered_rightly(made: Any) -> None:
    blobs, digests, wanted = made
    held = Residence(0, lambda digest: bundle.load(blobs, digest))
    models = [held(digest) for digest in digests]
    wrong: list[object] = []

    def ask(number: int) -> None:
        for turn in range(12):
            at = (number + turn) % MODELS
            try:
                found = models[at].predict(models[at].signature.columns([ROW]))["probability"][0]
                if abs(found - wanted[at]) > 1e-12:
                    wrong.append((at, found))
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong


def home_of(made: Any, path: Path, budget: str = "") -> Path:
    import shutil

    blobs, digests, _ = made
    shutil.copytree(blobs.root, path / "blobs")
    if budget:
        (path / "flyball.toml").write_text(f"[serving]\nmemory_budget_mb = {budget}\n")
    place(path, 1, digests)
    return path


def place(path: Path, generation: int, digests: list[str]) -> None:
    deployments: Mapping[str, ServedDeployment] = {
        f"m{at}": ServedDeployment(generation, "salt", (Variant("champion", f"m{at}@{generation}", digest),))
        for at, digest in enumerate(digests)
    }
    write(path / "serving" / "snapshot.json", Snapshot(generation, deployments))


def ask(service: Service, deployment: str) -> asyncio.Future[float]:
    future: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def done(answer: Any, error: Any) -> None:
        assert not future.done(), "answered twice"
        if answer is None:
            future.set_exception(error)
        else:
            future.set_result(answer.records()[0]["outputs"]["probability"])

    service.ask(Question(deployment, [ROW]), done)
    return future


def test_a_data_plane_serves_more_models_than_its_budget_and_reloads_beside_the_loop(made: Any, tmp_path: Path) -> None:
    home, wanted = home_of(made, tmp_path, "0"), made[2]

    async def scene() -> None:
        loop = asyncio.get_running_loop()
        service = Service(Engine(home, deliver=loop.call_soon_threadsafe))
        await service.start()
        residence = service.engine.residence
        assert residence is not None
        on_loop: list[bool] = []
        load = residence._load
        here = threading.current_thread()
        residence._load = lambda digest: (on_loop.append(threading.current_thread() is here), load(digest))[1]  # type: ignore[func-returns-value]
        for _ in range(3):
            found = await asyncio.wait_for(asyncio.gather(*(ask(service, f"m{at}") for at in range(MODELS))), 60)
            np.testing.assert_allclose(found, wanted, rtol=1e-12)
        assert len(residence.taken()) == 1 and on_loop and not any(on_loop)
        await service.stop()

    asyncio.run(scene())


def test_a_hundred_swaps_under_load_lose_no_request_and_answer_none_twice(made: Any, tmp_path: Path) -> None:
    home, digests, wanted = home_of(made, tmp_path), made[1], made[2]

    async def scene() -> None:
        loop = asyncio.get_running_loop()
        service = Service(Engine(home, deliver=loop.call_soon_threadsafe))
        await service.start()
        is_swapping = True
        answered = 0

        async def client() -> None:
            nonlocal answered
            while is_swapping:
                found = await asyncio.wait_for(ask(service, "m0"), 60)
                assert min(abs(found - each) for each in wanted) < 1e-12
                answered += 1

        clients = [asyncio.create_task(client()) for _ in range(8)]
        for generation in range(2, 102):
            turned = digests[generation % MODELS :] + digests[: generation % MODELS]
            await loop.run_in_executor(None, place, home, generation, turned)
            await service.look(is_forced=True)
            assert service.error is None and service.engine.lineup.generation == generation
        is_swapping = False
        await asyncio.gather(*clients)
        assert answered >= 100
        assert abs(await ask(service, "m0") - wanted[101 % MODELS]) < 1e-12
        await service.stop()

    asyncio.run(scene())
