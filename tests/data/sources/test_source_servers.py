"""S3, HTTP, Delta and Kafka, each against a server that runs: what is new, what is cut, what is not there, secrets."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import boto3
import polars as pl
import pytest
from confluent_kafka import Producer
from deltalake import DeltaTable

from flyball.data.kinds import Source
from flyball.data.sources import Reading, SourceSettings, probe, read_source
from flyball.data.sources._addresses import allowed_address
from flyball.errors import FlyballError, InvalidInput, NotFound, Unavailable
from flyball.testing.clock import FakeClock
from tests.services import kafka_cluster, s3_server, web_server

ENVIRON = {"KEY": "AKIAFLYBALL", "SECRET": "never-to-be-shown", "TOKEN": "tok"}
QUICK = SourceSettings(timeout_s=3, attempts=3)


def read(spec: Source, since: Mapping[str, Any] | None = None, settings: SourceSettings = QUICK) -> Reading:
    return read_source(spec, since, environ=ENVIRON, settings=settings)


def rows(spec: Source, since: Mapping[str, Any] | None = None) -> tuple[Any, ...]:
    with read(spec, since) as reading:
        found = sorted(reading.frame.collect().rows()) if reading.frame is not None else None
        return reading.mode, found, reading.watermark


# ---- S3


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    with s3_server() as endpoint:
        client = boto3.client(
            "s3", endpoint_url=endpoint, aws_access_key_id="a", aws_secret_access_key="b", region_name="us-east-1"
        )
        client.create_bucket(Bucket="data")
        yield client


def objects(s3: Any, files: str, **options: Any) -> Source:
    store = {"endpoint": s3.meta.endpoint_url, "access_key_id": "${KEY}", "secret_access_key": "${SECRET}"}
    return Source(files=files, options={**store, **options})


def test_objects_are_read_by_glob_and_new_ones_appended(s3: Any) -> None:
    for year in (1, 2):
        s3.put_object(Bucket="data", Key=f"f/year={year}/x.csv", Body=b"a\n%d\n" % year)
    s3.put_object(Bucket="data", Key="f/other/deep/x.csv", Body=b"b\n1\n")
    spec = objects(s3, "s3://data/f/year=*/*.csv")
    mode, found, since = rows(spec)
    assert (mode, found) == ("whole", [(1, 1), (2, 2)])
    assert rows(spec, since)[1] is None
    s3.put_object(Bucket="data", Key="f/year=3/x.csv", Body=b"a\n3\n")
    mode, found, since = rows(spec, since)
    assert (mode, found) == ("append", [(3, 3)])
    s3.put_object(Bucket="data", Key="f/year=1/x.csv", Body=b"a\n7\n")
    assert rows(spec, since)[:2] == ("whole", [(2, 2), (3, 3), (7, 1)])


def test_parquet_in_the_store_is_read_beyond_a_watermark_and_probed_by_its_end(s3: Any, tmp_path: Path) -> None:
    big = pl.DataFrame({"id": range(1_500_000)}).with_columns(pl.col("id").hash().alias("h"))
    big.write_parquet(tmp_path / "x.parquet", compression="uncompressed")
    assert (tmp_path / "x.parquet").stat().st_size > 16 * 2**20
    s3.upload_file(str(tmp_path / "x.parquet"), "data", "big.parquet")
    spec = objects(s3, "s3://data/big.parquet").model_copy(update={"watermark": "id"})
    look = probe(spec, {"id": "integer", "h": None}, environ=ENVIRON, max_age="1h")
    assert look.is_good and list(look.columns) == ["id", "h"]
    with read(spec) as reading:
        assert reading.frame is not None and reading.watermark["value"] == 1_499_999
        assert reading.frame.select(pl.len()).collect().item() == 1_500_000


@pytest.mark.parametrize(
    ("files", "kind", "says"),
    [
        ("s3://nowhere/*.csv", NotFound, "no bucket nowhere"),
        ("s3://data/nope.csv", NotFound, "no object s3://data/nope.csv"),
        ("s3://data/nope-*.csv", NotFound, "no object matches"),
        ("s3://data/crooked.csv", InvalidInput, "line 2 of s3://data/crooked.csv has 1 field"),
        ("s3://data", InvalidInput, "names no object"),
    ],
)
def test_what_is_wrong_in_the_store_is_said(s3: Any, files: str, kind: type[FlyballError], says: str) -> None:
    s3.put_object(Bucket="data", Key="crooked.csv", Body=b"a,b\n3\n")
    with pytest.raises(kind) as caught:
        read(objects(s3, files))
    assert says in str(caught.value) and ENVIRON["SECRET"] not in str(caught.value)


def test_a_dead_store_is_said(s3: Any) -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        read(objects(s3, "s3://data/x.csv", endpoint="http://127.0.0.1:1"))


def test_a_delta_table_in_the_store_is_read(s3: Any) -> None:
    options = {
        "aws_endpoint_url": s3.meta.endpoint_url,
        "aws_access_key_id": "a",
        "aws_secret_access_key": "b",
        "aws_region": "us-east-1",
        "aws_allow_http": "true",
        "aws_conditional_put": "etag",
    }
    pl.DataFrame({"a": [1]}).write_delta("s3://data/table", storage_options=options)
    store = objects(s3, "s3://x/y").options
    mode, found, since = rows(Source(delta="s3://data/table", options=store))
    assert (mode, found) == ("whole", [(1,)])
    pl.DataFrame({"a": [2]}).write_delta("s3://data/table", mode="append", storage_options=options)
    assert rows(Source(delta="s3://data/table", options=store), since)[:2] == ("append", [(2,)])
    with pytest.raises(NotFound):
        read(Source(delta="s3://data/nothing-here", options=store))


# ---- HTTP

hits: Counter[str] = Counter()


def answer(request: BaseHTTPRequestHandler) -> None:
    path, page = request.path, int(request.path.rpartition("=")[2]) if "=" in request.path else 1
    hits[path] += 1
    code, body, headers = 200, b"a,b\n1,2\n", {}
    if path == "/same.csv":
        headers = {"ETag": '"v1"', "Last-Modified": "Sat, 21 Nov 2026 10:00:00 GMT"}
        code, body = (304, b"") if request.headers.get("If-None-Match") == '"v1"' else (code, body)
    elif path == "/cut.csv":
        headers = {"Content-Length": "5000"}
        request.close_connection = True
    elif path == "/chunks.csv":
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        request.wfile.write(b"8\r\na,b\n1,2\n\r\n8\r\na,")
        request.close_connection = True
        return
    elif path == "/flaky.csv":
        code = 503 if hits[path] < 3 else 200
    elif path in ("/to-file", "/to-metadata", "/to-same", "/round"):
        targets = {"/to-file": "file:///etc/passwd", "/to-metadata": "http://169.254.169.254/x", "/round": "/round"}
        code, headers = 302, {"Location": targets.get(path, "/same.csv")}
    elif path == "/typed":
        headers = {"Content-Type": "text/csv; charset=utf-8"}
    elif path == "/page.html":
        headers = {"Content-Type": "text/html"}
    elif path == "/secret.csv":
        code = 200 if request.headers.get("Authorization") == "Bearer tok" else 403
    elif path == "/crooked.csv":
        body = b"a,b\n1\n"
    elif path.startswith("/counted"):
        body = json.dumps({"data": {"items": [{"id": page}] if page < 4 else []}}).encode()
    elif path.startswith("/next"):
        body = json.dumps({"items": [{"id": page}], "next": f"/next?p={page + 1}" if page < 3 else None}).encode()
    elif path.startswith("/linked"):
        body = json.dumps([{"id": page, "x": 1 if page < 2 else 1.5}]).encode()
        headers = {"Link": f'</linked?p={page + 1}>; rel="next"'} if page < 3 else {}
    elif path == "/circle":
        body = json.dumps({"items": [{"id": 1}], "next": "/circle"}).encode()
    else:
        code = 404
    request.send_response(code)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(body)


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    with web_server(answer) as url:
        yield url


def test_a_file_at_a_url_is_read_and_not_again_while_unchanged(web: str) -> None:
    mode, found, since = rows(Source(url=web + "/same.csv"))
    assert (mode, found) == ("whole", [(1, 2)]) and since["etag"] == '"v1"'
    assert rows(Source(url=web + "/same.csv"), since) == ("whole", None, since)
    for path in ("/flaky.csv", "/to-same", "/typed"):
        assert rows(Source(url=web + path))[1] == [(1, 2)]
    assert hits["/flaky.csv"] == 3
    secret = Source(url=web + "/secret.csv", options={"headers": {"Authorization": "Bearer ${TOKEN}"}})
    assert rows(secret)[1] == [(1, 2)]


def test_pages_of_an_api_are_one_table(web: str) -> None:
    counted = Source(url=web + "/counted", options={"records": "data.items", "page": "p"})
    assert rows(counted)[1] == [(1,), (2,), (3,)]
    assert rows(Source(url=web + "/next", options={"records": "items", "next": "next"}))[1] == [(1,), (2,), (3,)]
    linked = rows(Source(url=web + "/linked", options={"records": "", "next": "link"}))[1]
    assert linked == [(1, 1.0), (2, 1.5), (3, 1.5)]


@pytest.mark.parametrize(
    ("path", "options", "kind", "says"),
    [
        ("/cut.csv", {}, Unavailable, "broke off"),
        ("/chunks.csv", {}, Unavailable, "broke off"),
        ("/nope.csv", {}, NotFound, "nothing at"),
        ("/secret.csv", {}, InvalidInput, "refuses to let us in (403)"),
        ("/to-file", {}, InvalidInput, "only http:// and https://"),
        ("/to-metadata", {}, InvalidInput, "which no source may be"),
        ("/round", {}, InvalidInput, "leads on more than 5 times"),
        ("/page.html", {}, InvalidInput, "text/html"),
        ("/crooked.csv", {}, InvalidInput, "/crooked.csv has 1 field"),
        ("/same.csv", {"limit_mb": 0.000001}, InvalidInput, "limit_mb"),
        ("/same.csv", {"records": "x"}, InvalidInput, "is not JSON"),
        ("/circle", {"records": "items", "next": "next"}, InvalidInput, "leads from page 1 back"),
        ("/next", {"records": "itemz", "next": "next"}, InvalidInput, 'did you mean "items"'),
        ("/counted", {"records": "data.items", "page": "p", "pages": 2}, InvalidInput, "more than 2 pages"),
    ],
)
def test_what_is_wrong_at_a_url_is_said(
    web: str, path: str, options: dict[str, Any], kind: type[FlyballError], says: str
) -> None:
    with pytest.raises(kind) as caught:
        read(Source(url=web + path, options=options))
    assert says in str(caught.value)


def test_servers_that_may_not_be_reached_are_not(web: str) -> None:
    with pytest.raises(InvalidInput, match="is this machine"):
        read(Source(url=web + "/same.csv"), settings=SourceSettings(allow_loopback=False))
    with pytest.raises(InvalidInput, match=r"a public server leads to 127\.0\.0\.1, which is loopback"):
        allowed_address("127.0.0.1", 80, SourceSettings(), from_public=True)
    with pytest.raises(InvalidInput, match="private network"):
        allowed_address("10.1.2.3", 80, SourceSettings(allow_private=False))
    for address in ("169.254.169.254", "::ffff:169.254.169.254", "0.0.0.0", "224.0.0.1"):
        with pytest.raises(InvalidInput, match="which no source may be"):
            allowed_address(address, 80, SourceSettings())
    assert allowed_address("9.9.9.9", 80, SourceSettings()) == ("9.9.9.9", True)
    with pytest.raises(Unavailable, match="does not answer"):
        read(Source(url="http://127.0.0.1:1/x.csv"))


def test_a_probe_of_a_url_tells_columns_and_age(web: str) -> None:
    clock = FakeClock(datetime(2026, 11, 21, 12, tzinfo=UTC))
    found = probe(Source(url=web + "/same.csv"), {"a": "integer", "c": None}, max_age="1h", clock=clock)
    assert found.columns == {"a": "Int64", "b": "Int64"} and len(found.problems) == 2
    assert not probe(Source(url=web + "/nope.csv")).reachable


# ---- Delta


def test_versions_that_append_are_appended_and_others_read_anew(tmp_path: Path) -> None:
    path = str(tmp_path / "t")

    def write(a: int, p: str, mode: Any = "append") -> None:
        frame = pl.DataFrame({"a": [a], "p": [p]})
        frame.write_delta(path, mode=mode, delta_write_options={"partition_by": ["p"]})

    spec = Source(delta=path)
    write(1, "x")
    mode, found, first = rows(spec)
    assert (mode, found) == ("whole", [(1, "x")]) and rows(spec, first)[1] is None
    write(2, "y")
    write(3, "z z")
    mode, found, since = rows(spec, first)
    assert (mode, found) == ("append", [(2, "y"), (3, "z z")])
    DeltaTable(path).optimize.compact()
    mode, found, since = rows(spec, since)
    assert found is None
    DeltaTable(path).delete("a = 1")
    with read(spec, since) as reading:
        assert reading.mode == "whole" and "DELETE" in reading.notes[0]
        assert reading.frame is not None and sorted(reading.frame.collect()["a"]) == [2, 3]
    write(9, "x", "overwrite")
    assert rows(spec, since)[:2] == ("whole", [(9, "x")])
    assert rows(Source(delta=path, options={"version": 0}))[1] == [(1, "x")]
    look = probe(spec, {"a": "integer", "b": None}, max_age="1h")
    assert look.columns == {"a": "Int64", "p": "String"} and len(look.problems) == 1
    with pytest.raises(NotFound, match="has no version 77"):
        read(Source(delta=path, options={"version": 77}))
    with pytest.raises(NotFound, match="no Delta table"):
        read(Source(delta=str(tmp_path)))


def test_a_delta_table_that_is_made_anew_is_read_anew(tmp_path: Path) -> None:
    path = str(tmp_path / "t")
    pl.DataFrame({"a": [1]}).write_delta(path)
    since = rows(Source(delta=path))[2]
    shutil.rmtree(path)
    pl.DataFrame({"a": [2]}).write_delta(path)
    assert rows(Source(delta=path), since)[:2] == ("whole", [(2,)])


# ---- Kafka


@pytest.fixture(scope="module")
def kafka() -> Iterator[str]:
    with kafka_cluster() as servers:
        yield servers


def send(kafka: str, topic: str, *values: bytes) -> None:
    producer = Producer({"bootstrap.servers": kafka, "log_level": 0})
    for number, value in enumerate(values):
        producer.produce(topic, value, key=str(number))
    assert producer.flush(30) == 0


def topic(kafka: str, name: str, **options: Any) -> Source:
    return Source(topic=f"kafka://{kafka}/{name}", options=options)


def test_each_message_is_read_once_though_nothing_is_committed(kafka: str) -> None:
    send(kafka, "flights", *(json.dumps({"a": i}).encode() for i in range(25_000)))
    spec = topic(kafka, "flights", key="k", timestamp="at", partition="p", offset="o")
    with read(spec) as first:
        assert first.mode == "whole" and first.frame is not None
        found = first.frame.collect()
    assert sorted(found["a"]) == list(range(25_000)) and found.select("p", "o").is_unique().all()
    assert found["k"].to_list() == found["a"].cast(pl.String).to_list() and found.schema["at"] == pl.Datetime(
        "us", "UTC"
    )
    since = json.loads(json.dumps(first.watermark))
    assert rows(spec, since)[1] is None
    send(kafka, "flights", b'{"a": 1.5, "b": "x"}', b'{\n"a": 2}')
    plain = topic(kafka, "flights")
    with read(plain, since) as again, read(plain, since) as same:  # the first reader died before it published
        assert again.frame is not None and same.frame is not None and again.mode == "append"
        assert again.frame.collect().sort("a").equals(same.frame.collect().sort("a"))  # partitions come in no order
        assert sorted(again.frame.collect().rows(), key=str) == [(1.5, "x"), (2.0, None)]
    assert rows(plain, again.watermark)[1] is None
    with read(topic(kafka, "flights", limit=10)) as some:
        assert some.frame is not None and some.frame.collect().height == 10


def test_bad_messages_are_named_or_dropped(kafka: str) -> None:
    send(kafka, "odd", b'{"a": 1}', b"nope", b"[1]", b"", b"\xff", b"{}")
    with pytest.raises(InvalidInput, match=r"are no JSON objects: 5 \(partition/offset \d/\d"):
        read(topic(kafka, "odd"))
    with read(topic(kafka, "odd", bad="drop")) as reading:
        assert reading.frame is not None and reading.frame.collect().rows() == [(1,)]
        assert "5" in reading.notes[0] and sum(reading.watermark["offsets"].values()) == 6


def test_what_is_wrong_with_a_topic_is_said(kafka: str) -> None:
    send(kafka, "small", b'{"a": 1}')
    since = rows(topic(kafka, "small"))[2]
    with pytest.raises(InvalidInput, match="the topic was made anew"):
        read(topic(kafka, "small"), {**since, "offsets": dict.fromkeys(since["offsets"], 99)})
    with pytest.raises(NotFound, match="no topic nowhere"):
        read(topic(kafka, "nowhere"))
    with pytest.raises(Unavailable, match="does not answer"):
        read(topic("127.0.0.1:1", "small"))
    with pytest.raises(InvalidInput, match="column that messages do not have"):
        read(topic(kafka, "small", key="a"))
    look = probe(topic(kafka, "small"), {"a": "integer", "b": None}, max_age="1h")
    assert look.columns == {"a": "Int64"} and len(look.problems) == 1 and look.newest is not None
    later = FakeClock(datetime.now(UTC) + timedelta(days=2))
    assert "expected 1h at most" in probe(topic(kafka, "small"), max_age="1h", clock=later).problems[0]
