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
        with pytest.raises(InvalidInput, match=r'schema drift.*"b" is missing'):
            store.write([pl.DataFrame({"a": [1]})], after=first.digest)
        with pytest.raises(InvalidInput, match='"a" is String, not Int64'):
            store.write([pl.DataFrame({"a": ["1"], "b": ["x"]})], after=first.digest)
        with pytest.raises(InvalidInput, match='"c" is new'):
            store.write([pl.DataFrame({"a": [1], "b": ["x"], "c": [1]})], after=first.digest)

    def test_a_schema_that_drifts_in_the_middle_is_refused(self, store: TableStore) -> None:
        with pytest.raises(InvalidInput, match='"a" is Float64, not Int64'):
            store.write([pl.DataFrame({"a": [1]}), pl.DataFrame({"a": [1.5]})])

    def test_columns_in_another_order_narrower_integers_and_nulls_only_are_fitted(self, store: TableStore) -> None:
        first = store.write(pl.DataFrame({"a": [1], "b": ["x"], "c": [[1, 2]]}).lazy())
        more = pl.DataFrame({"c": [[]], "b": [None], "a": pl.Series([200], dtype=pl.UInt8)})
        second = store.write(more.lazy(), after=first.digest)
        assert second.schema == first.schema
        assert store.scan(second.digest).collect().rows() == [(1, "x", [1, 2]), (200, None, [])]

    def test_joined_tables_share_the_parts_of_both(self, store: TableStore) -> None:
        frame = pl.DataFrame({"n": range(1000)})
        first, second = store.write(frame.lazy()), store.write((frame + 1000).lazy())
        joined = store.join(first.digest, second)
        assert joined.parts == first.parts + second.parts
        assert store.scan(joined.digest).collect()["n"].to_list() == list(range(2000))

    def test_many_small_parts_become_few_and_every_version_reads_as_it_was(self, store: TableStore) -> None:
        digests = [store.write([pl.DataFrame({"n": [0]})]).digest]
        for n in range(1, 150):
            digests.append(store.write([pl.DataFrame({"n": [n]})], after=digests[-1]).digest)
            assert len(store.read(digests[-1]).parts) <= 64
        for n in (0, 30, 31, 32, 33, 63, 64, 149):
            assert store.scan(digests[n]).collect()["n"].to_list() == list(range(n + 1))

    def test_some_parts_are_replaced_and_the_others_shared(self, store: TableStore) -> None:
        parts = [pl.DataFrame({"n": [n, n + 1]}) for n in (0, 10, 20)]
        first = store.write([parts[0]])
        for part in parts[1:]:
            first = store.write([part], after=first.digest)
        more = store.write([pl.DataFrame({"n": [99]})])
        second = store.replace(first.digest, {1: [pl.DataFrame({"n": [7]})], 2: [parts[2].clear()]}, more)
        assert store.scan(second.digest).collect()["n"].to_list() == [0, 1, 7, 99]
        assert second.parts[0] == first.parts[0]
        assert store.scan(first.digest, [1]).collect()["n"].to_list() == [10, 11]
        empty = store.replace(first.digest, {n: [parts[n].clear()] for n in range(3)})
        assert (empty.rows, list(store.scan(empty.digest).collect_schema())) == (0, ["n"])
        with pytest.raises(InvalidInput, match="no part 3; its places are 0 to 2"):
            store.replace(first.digest, {3: parts})

    def test_a_scan_with_a_predicate_and_few_columns_gives_those(self, store: TableStore) -> None:
        frame = pl.DataFrame({"n": range(5000), "m": range(5000)})
        scan = store.scan(store.write(frame.lazy()).digest)
        assert scan.filter(pl.col("n") >= 4990).select("m").collect()["m"].to_list() == list(range(4990, 5000))
        assert scan.head(3).filter(pl.col("n") > 1).collect().rows() == [(2, 2)]
        assert scan.select(pl.len()).collect().item() == 5000

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

    def test_of_the_same_event_the_later_arrival_stays(self, store: OnlineStore) -> None:
        def value(arrival: int, x: int) -> OnlineValue:
            return OnlineValue(NOW, {"x": x}, NOW + timedelta(microseconds=arrival))

        assert store.put("v", [("k", value(2, 1))]) == 1
        assert store.put("v", [("k", value(1, 2))]) == 0
        assert store.put("v", [("k", value(2, 3))]) == 1
        assert store.get("v", ["k"]) == [value(2, 3)]
        newer = OnlineValue(NOW + timedelta(microseconds=1), {"x": 4}, NOW - timedelta(days=1))
        assert store.put("v", [("k", newer), ("k", value(9, 5))]) == 1
        assert store.get("v", ["k"]) == [newer]

    def test_encoded_rows_are_read_back_as_those_that_were_put(self, store: OnlineStore) -> None:
        keys = [f"é{n}" for n in range(3000)]
        values = [b'[%d,"a\\"%d",null]' % (n, n) for n in range(3000)]
        written = store.put_encoded("v", ["n", "text", "none"], keys, range(3000), values, range(1, 3001))
        assert (written, store.count("v")) == (3000, 3000)
        found = store.get("v", ["é7", "x", "é2999"])
        assert found[1] is None
        assert found[2] is not None and found[2].known_at is not None
        assert dict(found[2].values) == {"n": 2999, "text": 'a"2999', "none": None}
        assert found[2].known_at - found[2].event_time == timedelta(microseconds=1)
        row = store.read("v", ["é7"])[0]
        assert row is not None
        assert (*row[:2], row[3], store.names("v", row[2])) == (7, 8, values[7], ("n", "text", "none"))

    def test_of_a_key_that_comes_twice_the_newest_stays(self, store: OnlineStore) -> None:
        events = [5, 9, 7, 9, 1]
        store.put_encoded("v", ["n"], ["k"] * 5, events, [b"[%d]" % n for n in range(5)])
        assert [v.values["n"] for v in store.get("v", ["k"]) if v] == [3]
        assert store.put_encoded("v", ["n"], [], [], []) == 0

    def test_values_of_other_names_live_side_by_side(self, store: OnlineStore) -> None:
        store.put("v", [("a", OnlineValue(NOW, {"x": 1, "y": 2})), ("b", OnlineValue(NOW, {"y": 3}))])
        store.put_encoded("v", ["z"], ["c"], [0], [b"[4]"])
        assert [dict(v.values) for v in store.get("v", ["a", "b", "c"]) if v] == [{"x": 1, "y": 2}, {"y": 3}, {"z": 4}]

    def test_keys_of_every_look_are_different_keys(self, store: OnlineStore) -> None:
        keys = ["", "0", "00", "7", "07", "7 ", "-7", "1234567", "01234567", "12345678", "123456789012345678"]
        keys += ["1234567890123456789", "١٢٣", "\x00", "\x00\x00", "ñandú", "[1,2]", "a" * 300, "N13914", "n13914"]
        store.put("v", [(key, OnlineValue(NOW, {"n": n})) for n, key in enumerate(keys)])
        assert store.count("v") == len(keys)
        assert [v.values["n"] for v in store.get("v", keys) if v] == list(range(len(keys)))
        assert store.delete("v", keys[::2]) == len(keys[::2])
        assert [v is not None for v in store.get("v", keys)] == [n % 2 == 1 for n in range(len(keys))]

    def test_columns_of_different_lengths_are_refused(self, store: OnlineStore) -> None:
        with pytest.raises(InvalidInput, match="values of rows for v are 1; expected 2"):
            store.put_encoded("v", ["n"], ["a", "b"], [1, 2], [b"[1]"])
        with pytest.raises(InvalidInput, match="surrogate"):
            store.put("v", [("\ud800", OnlineValue(NOW, {"n": 1}))])
        assert store.count("v") == 0

    def test_nothing_is_asked_and_nothing_is_there(self, store: OnlineStore) -> None:
        assert store.get("v", []) == store.read("v", []) == []
        assert store.get("v", ["a", "b"]) == [None, None]
        assert (store.delete("v"), store.delete("v", ["a"]), store.count("v")) == (0, 0, 0)
