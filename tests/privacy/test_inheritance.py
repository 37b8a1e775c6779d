"""What is made of datasets inherits their purposes, retention and regions through any number of steps."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from flyball.errors import Forbidden
from flyball.ledger.refs import Ref, ref
from flyball.platform import Platform
from flyball.testing.clock import FakeClock

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DAY = 86_400.0


def customers(rows: int = 6) -> pl.DataFrame:
    return pl.DataFrame(
        {"email": [f"u{n}@example.org" for n in range(rows)], "since": [NOW + timedelta(days=n) for n in range(rows)]}
    )


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
def platform(tmp_path: Path, clock: FakeClock) -> Iterator[Platform]:
    """A chain of two derivations: customers → contacts → mailing."""
    opened = Platform.open(tmp_path / "home", clock=clock)
    opened.declare(
        "dataset", "customers", event_time="since", purposes=["fraud", "billing", "support"], retention="30d"
    )
    opened.publish("customers", customers())
    opened.declare("dataset", "contacts", event_time="since", purposes=["billing", "support", "marketing"])
    opened.publish("contacts", "select email as contact, since from customers", purpose="billing")
    opened.declare("dataset", "mailing", event_time="since")
    opened.publish("mailing", "select contact as address, since from contacts", purpose="billing")
    yield opened
    opened.close()


def test_the_second_derivation_may_be_read_only_for_what_both_before_it_allow(platform: Platform) -> None:
    assert platform.guard.purposes("customers") == (("fraud", "billing", "support"), ("dataset/customers",))
    assert platform.guard.purposes("mailing") == (("billing", "support"), ("dataset/contacts", "dataset/customers"))
    with pytest.raises(Forbidden, match=r"dataset/mailing may be read only .* \(allowed: billing, support\)"):
        platform.frame("mailing")
    with pytest.raises(Forbidden, match=r'dataset/contacts, which dataset/mailing was made of, does not .* "fraud"'):
        platform.frame("mailing", purpose="fraud")
    with pytest.raises(Forbidden, match=r'dataset/customers, which dataset/mailing was made of, does not .* "market'):
        platform.frame("mailing", purpose="marketing")
    assert platform.frame("mailing", purpose="support").collect().height == 6
    assert platform.frame("customers", purpose="fraud").collect().height == 6  # nothing is inherited upwards


def test_its_own_words_and_policies_of_what_is_behind_it_restrict_it_further(platform: Platform) -> None:
    platform.declare("policy", "support-only", applies_to={"datasets": ["customers"]}, purposes=["support"])
    assert platform.guard.purposes("mailing") == (
        ("support",),
        ("dataset/contacts", "dataset/customers", "policy/support-only"),
    )
    platform.declare("dataset", "mailing", event_time="since", purposes=["billing"])
    with pytest.raises(Forbidden, match="dataset/mailing may be read for nothing"):
        platform.frame("mailing", purpose="billing")


def test_rows_of_the_whole_chain_leave_by_the_shortest_retention_behind_them(
    platform: Platform, clock: FakeClock
) -> None:
    assert platform.guard.retention("mailing") == (timedelta(days=30), "dataset/customers")
    platform.declare("dataset", "mailing", event_time="since", retention="400d")
    assert platform.guard.retention("mailing") == (timedelta(days=30), "dataset/customers")
    clock.advance(33 * DAY)  # three of six rows are older than 30 days, that of the border is not
    found = {expired.dataset: expired for expired in platform.retention(dry_run=False)}
    assert {name: (one.because, one.rows) for name, one in found.items()} == {
        "customers": ("dataset/customers", 3),
        "contacts": ("dataset/customers", 3),
        "mailing": ("dataset/customers", 3),
    }
    assert platform.frame("mailing", purpose="billing").collect()["address"].to_list() == [
        "u3@example.org", "u4@example.org", "u5@example.org"
    ]  # fmt: skip
    platform.declare("dataset", "mailing", event_time="since", retention="29d")
    assert platform.guard.retention("mailing") == (timedelta(days=29), "dataset/mailing")


def test_what_inherits_a_retention_without_an_event_time_stays_and_is_told(platform: Platform) -> None:
    platform.declare("dataset", "totals")
    platform.publish("totals", "select count(*) as n from contacts", purpose="billing")
    (found,) = [expired for expired in platform.retention(dry_run=False) if expired.dataset == "totals"]
    assert (found.because, found.problem) == ("dataset/customers", "")
    assert found.note == "rows of dataset/totals have no age and stay; if they have a time, declare it as event_time"
    platform.declare("policy", "short", applies_to={"datasets": ["totals"]}, retention="90d")
    (found,) = [expired for expired in platform.retention() if expired.dataset == "totals"]
    assert "has a retention but no event_time" in found.problem  # who limits it by name means it


def test_what_a_run_publishes_inherits_of_what_the_run_used_and_no_model_hands_anything_on(platform: Platform) -> None:
    platform.declare("dataset", "scores")
    with platform.start_run("scoring") as run:
        run.use(ref("dataset/contacts@1"))
        platform.publish("scores", {"score": [1, 2]}, run=run.id)
    assert platform.guard.purposes("scores") == (("billing", "support"), ("dataset/contacts", "dataset/customers"))
    platform.declare("dataset", "taught")
    platform.declare("model", "m")
    with platform.ledger.write("user/a") as world:
        model = world.versions.publish("model", "m", "0" * 64, made_from=[(ref("dataset/customers@1"), "trained on")])
    platform.publish("taught", {"n": [1]}, made_from=[(model.ref, "taught by"), (Ref("deployment", "d"), "taught by")])
    assert platform.guard.purposes("taught") is None


def test_what_was_appended_to_keeps_what_lies_behind_its_older_rows_until_they_are_replaced(platform: Platform) -> None:
    platform.publish("mailing", {"address": ["new@example.org"], "since": [NOW]}, mode="append")
    platform.publish("mailing", {"address": ["newer@example.org"], "since": [NOW]}, mode="append")
    assert platform.guard.retention("mailing") == (timedelta(days=30), "dataset/customers")
    again = Platform.open(platform.home)  # which has seen none of the versions before
    assert again.guard.retention("mailing") == platform.guard.retention("mailing")
    again.close()
    platform.publish("mailing", {"address": ["other@example.org"], "since": [NOW]})
    assert platform.guard.retention("mailing") is None
    assert platform.frame("mailing").collect().height == 1


def located(platform: Platform, region: str) -> None:
    (platform.home / "flyball.toml").write_text(f'[governance]\nregion = "{region}"\n', encoding="utf-8")


def test_rows_made_of_rows_that_must_stay_in_a_region_must_stay_there_too(platform: Platform) -> None:
    platform.declare("dataset", "customers", event_time="since", residency="eu")
    with pytest.raises(Forbidden, match=r"dataset/customers says that dataset/mailing, made of dataset/customers, may"):
        platform.frame("mailing", purpose="billing")
    located(platform, "eu")
    assert platform.frame("mailing", purpose="billing").collect().height == 6
    located(platform, "us")
    with pytest.raises(
        Forbidden, match=r"dataset/mailing, made of dataset/customers, may be read in eu only; this .* us"
    ):
        platform.frame("mailing", purpose="billing")
    with pytest.raises(Forbidden, match="dataset/mailing, made of dataset/customers, may be kept in eu only"):
        platform.publish("mailing", {"address": ["new@example.org"], "since": [NOW]}, mode="append")
    platform.declare("dataset", "mailing", event_time="since", residency="us")  # its own word does not open it
    with pytest.raises(Forbidden, match="made of dataset/customers, may be read in eu only"):
        platform.frame("mailing", purpose="billing")


def test_a_policy_about_what_was_made_alone_says_otherwise_where_it_may_be(platform: Platform) -> None:
    platform.declare("policy", "eu-only", applies_to={"datasets": ["customers"]}, regions=["eu"])
    platform.declare("policy", "anywhere", regions=["eu", "us"])  # of all datasets: no exception for this one
    located(platform, "us")
    with pytest.raises(Forbidden, match="policy/eu-only says that dataset/contacts, made of dataset/customers, may"):
        platform.frame("contacts", purpose="billing")
    platform.declare("policy", "exported", applies_to={"datasets": ["contacts"]}, regions=["us"])
    assert platform.frame("contacts", purpose="billing").collect().height == 6
    with pytest.raises(Forbidden, match="dataset/mailing, made of dataset/customers"):
        platform.frame("mailing", purpose="billing")


def test_a_second_home_object_and_a_kept_answer_agree(platform: Platform) -> None:
    before = platform.guard.purposes("mailing")
    platform.publish("mailing", {"address": ["other@example.org"], "since": [NOW]})
    assert before != platform.guard.purposes("mailing")  # a new version is looked at anew
    again = Platform.open(platform.home)
    assert again.guard.purposes("mailing") == platform.guard.purposes("mailing")
    assert again.guard.purposes("contacts") == platform.guard.purposes("contacts")
    again.close()


def test_the_page_of_a_dataset_says_what_it_inherits(platform: Platform) -> None:
    from fastapi import FastAPI
    from starlette.testclient import TestClient

    from flyball.web.pages import mount

    app = FastAPI()
    mount(app, platform)
    with TestClient(app) as client:
        page = client.get("/datasets/mailing").text
    assert "billing, support, say dataset/contacts and dataset/customers" in page
    assert "says dataset/customers" in page
