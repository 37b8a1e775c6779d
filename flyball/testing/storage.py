"""What every store must do: subclass the cases of its protocol and give them a `store` fixture with an empty one.

class TestMyBlobs(BlobCases):
    @pytest.fixture
    def store(self): ...
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from flyball.errors import InvalidInput, NotFound
from flyball.storage.blobs import BlobStore, digest_of
from flyball.storage.online import OnlineStore, OnlineValue
from flyball.storage.tables import TableStore

__all__ = ["BlobCases", "OnlineCases", "TableCases"]

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class BlobCases:
    """Cases of `BlobStore`."""

    def test_a_blob_is_named_by_what_is_in_it_and_kept_once(self, store: BlobStore, tmp_path: Path) -> None:
        digest = store.put(b"hello")
        (tmp_path / "same").write_bytes(b"hello")
        assert store.put(tmp_path / "same") == digest == digest_of(b"hello")
        assert list(store.digests()) == [digest]
        assert store.get(digest) == b"hello"
        with store.open(digest) as stream:
            assert stream.read() == b"hello"

    def test_an_empty_blob_and_a_large_one_come_back(self, store: BlobStore) -> None:
        large = bytes(range(256)) * 20_000
        assert store.get(store.put(b"")) == b""
        assert store.get(store.put(large)) == large

    def test_a_path_where_there_is_one_leads_to_the_bytes(self, store: BlobStore) -> None:
        path = store.path(store.put(b"hello"))
        assert path is None or path.read_bytes() == b"hello"

    def test_what_was_deleted_is_gone_and_can_be_deleted_again(self, store: BlobStore) -> None:
        digest = store.put(b"hello")
        assert store.has(digest)
        assert store.delete(digest)
        assert not store.has(digest)
        assert not store.delete(digest)
        for read in (store.get, store.open):
            with pytest.raises(NotFound):
                read(digest)

    @pytest.mark.parametrize("digest", ["", "../../etc/passwd", "a" * 63, "A" * 64, "a" * 63 + "/"])
    def test_what_is_no_digest_never_becomes_a_place(self, store: BlobStore, digest: str) -> None:
        with pytest.raises(InvalidInput, match="is not a digest"):
            store.get(digest)


class TableCases:
    """Cases of `TableStore`."""

    def test_a_table_reads_back_as_it_was_written(self, store: TableStore) -> None:
        frame = pl.DataFrame({"n": range(2500), "text": [f"é{n}" for n in range(2500)], "at": [NOW] * 2500})
        table = store.write(frame.lazy())
        assert (table.rows, list(table.schema)) == (2500, ["n", "text", "at"])
        assert store.scan(table.digest).collect().equals(frame)
        assert store.read(table.digest) == table

    def test_the_same_rows_are_the_same_table(self, store: TableStore) -> None:
        frame = pl.DataFrame({"n": [1, 2, 3]})
        assert store.write(frame.lazy()).digest == store.write([frame]).digest

    def test_rows_that_follow_leave_the_table_before_as_it_was(self, store: TableStore) -> None:
        first = store.write(pl.DataFrame({"n": [1, 2]}).lazy())
        second = store.write([pl.DataFrame({"n": [3]})], after=first.digest)
        assert store.scan(first.digest).collect()["n"].to_list() == [1, 2]
        assert store.scan(second.digest).collect()["n"].to_list() == [1, 2, 3]

    def test_a_table_without_rows_keeps_its_schema(self, store: TableStore) -> None:
        empty = pl.DataFrame(schema={"n": pl.Int64, "at": pl.Datetime("us", "UTC")})
        assert store.scan(store.write(empty.lazy()).digest).collect().schema == empty.schema

    def test_a_table_without_columns_is_refused(self, store: TableStore) -> None:
        with pytest.raises(InvalidInput, match="no columns"):
            store.write(pl.DataFrame().lazy())

    def test_rows_with_other_columns_do_not_go_into_a_table(self, store: TableStore) -> None:
        first = store.write(pl.DataFrame({"a": [1], "b": ["x"]}).lazy())
        with pytest.raises(InvalidInput, match="b is missing"):
            store.write([pl.DataFrame({"a": [1]})], after=first.digest)
        with pytest.raises(InvalidInput, match="a is String, not Int64"):
            store.write([pl.DataFrame({"a": ["1"], "b": ["x"]})], after=first.digest)

    def test_an_unknown_table_is_not_found(self, store: TableStore) -> None:
        with pytest.raises(NotFound):
            store.read("0" * 64)


class OnlineCases:
    """Cases of `OnlineStore`."""

    def test_the_newest_value_by_event_time_stays_whatever_the_order_of_arrival(self, store: OnlineStore) -> None:
        late, early = OnlineValue(NOW + timedelta(hours=1), {"x": 2}), OnlineValue(NOW, {"x": 1})
        assert store.put("v", [("k", late)]) == 1
        assert store.put("v", [("k", early)]) == 0
        assert store.get("v", ["k", "other"]) == [late, None]

    def test_views_do_not_see_each_other(self, store: OnlineStore) -> None:
        store.put("a", [("k", OnlineValue(NOW, {"x": 1}))])
        assert store.get("b", ["k"]) == [None]
        assert (store.count("a"), store.count("b")) == (1, 0)

    def test_many_keys_come_back_in_the_order_asked(self, store: OnlineStore) -> None:
        store.put("v", [(str(n), OnlineValue(NOW, {"n": n})) for n in range(2000)])
        asked = [str(n) for n in range(1999, -1, -1)]
        assert [v.values["n"] for v in store.get("v", asked) if v] == list(range(1999, -1, -1))

    def test_values_of_every_kind_come_back(self, store: OnlineStore) -> None:
        values = {"text": "ñ☃", "none": None, "flag": True, "number": 1.5, "list": [1, "a"]}
        store.put("v", [("k", OnlineValue(NOW, values))])
        found = store.get("v", ["k"])[0]
        assert found is not None
        assert (dict(found.values), found.event_time) == (values, NOW)

    def test_deleting_takes_given_keys_or_all(self, store: OnlineStore) -> None:
        store.put("v", [(key, OnlineValue(NOW, {})) for key in "abc"])
        assert store.delete("v", ["a", "x"]) == 1
        assert store.delete("v") == 2
        assert store.count("v") == 0
