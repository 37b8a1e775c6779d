"""PostgreSQL and SQLite, real ones: exact types, only reading, going on where it ended, dying in the middle."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from ipaddress import ip_address
from pathlib import Path
from time import monotonic
from typing import Any

import polars as pl
import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

import flyball.data.sources._landing as landing
import flyball.data.sources.postgresql as postgresql
from flyball.data.kinds import Source
from flyball.data.sources import Reading, SourceSettings, probe, read_source
from flyball.errors import FlyballError, InvalidInput, NotFound, Unavailable
from tests.services import postgres_server

SECRET = {"PW": "open-sesame"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with postgres_server(tmp_path_factory.mktemp("postgres")) as url:
        yield url + "/postgres"


def ask(server: str, *statements: str) -> None:
    with psycopg.connect(server, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def read(server: str, since: Mapping[str, Any] | None = None, key: tuple[str, ...] = (), **more: Any) -> Reading:
    spec = Source(sql=server.replace("flyball@", "flyball:${PW}@"), **more)
    return read_source(spec, since, environ=SECRET, key=key, settings=SourceSettings(timeout_s=5))


def frame(reading: Reading) -> pl.DataFrame:
    with reading:
        assert reading.frame is not None
        return reading.frame.collect()


def test_postgresql_gives_exact_types(server: str) -> None:
    ask(
        server,
        """CREATE TABLE kinds (id bigint, small smallint, n integer, f4 real, f8 double precision, money numeric(12,3),
           any_numeric numeric, yes boolean, raw bytea, d date, t time, at timestamp, instant timestamptz, u uuid,
           doc jsonb, many int[], "odd "" name" text)""",
        """INSERT INTO kinds VALUES (9223372036854775807, -1, 2, 1.5, 0.1, 12345.678, 1e20, true, '\\xdead00',
           '2024-02-29', '12:30:00.5', '2024-01-01 10:00:00.000001', '2024-01-01 10:00+02',
           '00000000-0000-0000-0000-000000000001', '{"a": [1, "x"]}', '{1,2}', E'a,"b"\\n%')""",
        "INSERT INTO kinds (id) VALUES (1)",
        """INSERT INTO kinds (id, "odd "" name") VALUES (2, '')""",
    )
    found = frame(read(server, table="public.kinds"))
    assert dict(found.schema) == {
        "id": pl.Int64,
        "small": pl.Int16,
        "n": pl.Int32,
        "f4": pl.Float32,
        "f8": pl.Float64,
        "money": pl.Decimal(12, 3),
        "any_numeric": pl.Float64,
        "yes": pl.Boolean,
        "raw": pl.Binary,
        "d": pl.Date,
        "t": pl.Time,
        "at": pl.Datetime("us"),
        "instant": pl.Datetime("us", "UTC"),
        "u": pl.String,
        "doc": pl.String,
        "many": pl.String,
        'odd " name': pl.String,
    }
    first = (2**63 - 1, -1, 2, 1.5, 0.1, Decimal("12345.678"), 1e20, True, b"\xde\xad\x00", date(2024, 2, 29))
    first += (time(12, 30, 0, 500_000), datetime(2024, 1, 1, 10, 0, 0, 1), datetime(2024, 1, 1, 8, tzinfo=UTC))
    first += ("00000000-0000-0000-0000-000000000001", '{"a": [1, "x"]}', "{1,2}", 'a,"b"\n%')
    assert found.row(0) == first
    assert found.row(1) == (1, *[None] * 16) and found.row(2)[-1] == ""


def test_a_query_binds_its_parameters(server: str) -> None:
    query = "SELECT g, '5%' AS p, %(word)s AS w FROM generate_series(1, 10) g WHERE g > %(least)s; -- the end"
    query = query.replace("; -- the end", "  -- the end")
    hostile = "x'; DROP TABLE kinds; --"
    found = frame(read(server, query=query, parameters={"least": 8, "word": hostile}))
    assert found.rows() == [(9, "5%", hostile), (10, "5%", hostile)]


@pytest.mark.parametrize(
    ("asked", "kind", "says"),
    [
        ({"table": "nowhere"}, NotFound, "does not exist"),
        ({"query": "SELECT nope FROM kinds2"}, NotFound, "does not exist"),
        ({"query": "DELETE FROM guarded"}, InvalidInput, 'begins with "DELETE'),
        ({"query": "SELECT 1; DROP TABLE guarded"}, InvalidInput, "syntax error"),
        (
            {"query": "SELECT 1) AS rows) TO STDOUT; COMMIT; DROP TABLE guarded; COPY (SELECT * FROM (SELECT 1"},
            InvalidInput,
            "syntax error",
        ),
        ({"query": "WITH gone AS (DELETE FROM guarded RETURNING id) SELECT * FROM gone"}, InvalidInput, "WITH"),
        ({"query": "SELECT nextval('guarded_id_seq')"}, InvalidInput, "read-only"),
        ({"query": "SELECT 1 AS a, 2 AS a"}, InvalidInput, 'two columns named "a"'),
        ({"query": "SELECT 1 / (id - id) FROM guarded"}, InvalidInput, "division by zero"),
        ({"query": "SELECT 'infinity'::timestamptz AS t"}, InvalidInput, "no table holds"),
        ({"table": "guarded", "watermark": "nope"}, InvalidInput, 'no column "nope", its watermark'),
    ],
)
def test_what_does_not_only_read_or_is_not_there_is_refused(
    server: str, asked: dict[str, str], kind: type[FlyballError], says: str
) -> None:
    ask(server, "CREATE TABLE IF NOT EXISTS guarded (id serial)", "INSERT INTO guarded VALUES (1)")
    with pytest.raises(kind) as caught:
        frame(read(server, **asked))
    assert says in str(caught.value) and SECRET["PW"] not in str(caught.value)
    assert frame(read(server, table="guarded")).height >= 1


def test_postgresql_goes_on_where_it_ended(server: str) -> None:
    ask(
        server,
        "CREATE TABLE grows AS SELECT g AS id, timestamptz '2024-01-01Z' + g * interval '1 h' AS at "
        "FROM generate_series(1, 5) g",
    )
    more: dict[str, Any] = {"table": "grows", "watermark": "at"}
    with read(server, **more) as first:
        assert first.mode == "whole"
    since = first.watermark
    with read(server, since, **more) as nothing:
        assert not nothing.is_new and nothing.watermark == since
    ask(server, "INSERT INTO grows VALUES (6, '2024-01-01 06:00Z'), (0, '2024-01-01 04:30Z'), (7, '2024-01-01 05:00Z')")
    with read(server, since, **more) as strict:
        assert strict.mode == "append" and strict.frame is not None and strict.frame.collect()["id"].to_list() == [6]
    with read(server, since, ("id",), **more, lag="30m") as lagged:
        assert lagged.mode == "upsert" and lagged.frame is not None
        assert sorted(lagged.frame.collect()["id"]) == [0, 5, 6, 7]
    ask(server, "INSERT INTO grows VALUES (8, NULL)")
    with pytest.raises(InvalidInput, match=r'1 row of .* have no "at", the watermark'):
        read(server, since, **more)


def test_a_large_table_lands_in_parts_and_is_read_twice_alike(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landing, "_PART_BYTES", 200_000)
    monkeypatch.setattr(postgresql, "_BLOCK_BYTES", 50_000)
    with read(server, query="SELECT g AS id, md5(g::text) AS t FROM generate_series(1, 50000) g") as reading:
        assert reading.frame is not None
        one, two = reading.frame.collect(), reading.frame.collect()
    assert one.equals(two) and one["id"].to_list() == list(range(1, 50_001))


def test_a_backend_that_is_killed_leaves_no_shorter_table(server: str) -> None:
    query = "SELECT g AS id, repeat('x', 1000) AS t, pg_backend_pid() AS pid FROM generate_series(1, 2000000) g"
    killed = threading.Event()

    def kill() -> None:
        asked = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY (SELECT rows%' "
        with psycopg.connect(server, autocommit=True) as connection:
            while not killed.is_set():
                if connection.execute(asked.encode()).fetchone():
                    return

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(Unavailable, match=r"broke off while it was read.*nothing of it was kept"):
            read(server, query=query)
    finally:
        killed.set()
        killer.join(10)


def test_a_server_that_is_not_there_is_said_in_bounded_time_and_without_the_password() -> None:
    with pytest.raises(Unavailable, match="does not answer") as caught:
        read("postgresql://flyball@127.0.0.1:1/x", table="t")
    assert SECRET["PW"] not in str(caught.value)
    with pytest.raises(InvalidInput, match=r"names \$\{PW\}, and no environment variable"):
        read_source(Source(sql="postgresql://a:${PW}@h/x", table="t"), environ={})


def test_a_missing_database_is_not_found(server: str) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        read(server.replace("/postgres", "/nowhere"), table="t")


def test_a_probe_of_postgresql_tells_columns_and_age(server: str) -> None:
    ask(server, "CREATE TABLE fresh AS SELECT 1 AS id, timestamptz '2024-01-01Z' AS at")
    spec = Source(sql=server, table="fresh", watermark="at", max_age="1d")
    found = probe(spec, {"id": "integer", "at": "timestamp", "x": None})
    assert found.newest == datetime(2024, 1, 1, tzinfo=UTC) and len(found.problems) == 2
    assert 'no column "x"' in found.problems[0] and "expected 1d at most" in found.problems[1]
    assert not probe(Source(sql="postgresql://a@127.0.0.1:1/x", table="t")).reachable


@pytest.fixture
def lite(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    yield connection
    connection.close()


def local(tmp_path: Path, since: Mapping[str, Any] | None = None, **more: Any) -> Reading:
    return read_source(Source(sql="sqlite:x.db", **more), since, project=tmp_path, key=["id"])


def test_sqlite_gives_the_declared_types(tmp_path: Path, lite: sqlite3.Connection) -> None:
    lite.execute("CREATE TABLE t (id INTEGER, x REAL, name VARCHAR(9), raw BLOB, ok BOOLEAN, d DATE, at TIMESTAMP, n)")
    lite.execute("INSERT INTO t VALUES (1, 2, 'é', x'00ff', 1, '2024-02-29', '2024-01-01T10:00:00Z', 1)")
    lite.execute("INSERT INTO t VALUES (2, NULL, NULL, NULL, 0, NULL, '2024-01-01 10:00:00+01:00', 1.5)")
    found = frame(local(tmp_path, table="t"))
    assert found.schema["at"] == pl.Datetime("us", "UTC") and found.schema["x"] == pl.Float64
    instant = datetime(2024, 1, 1, 10, tzinfo=UTC)
    assert found.row(0) == (1, 2.0, "é", b"\x00\xff", True, date(2024, 2, 29), instant, 1.0)
    assert found.row(1) == (2, None, None, None, False, None, instant.replace(hour=9), 1.5)
    query = frame(local(tmp_path, query="SELECT id, x * 2 AS y FROM t WHERE id < :n", parameters={"n": 2}))
    assert query.rows() == [(1, 4.0)]


@pytest.mark.parametrize(
    ("column", "values", "says"),
    [
        ("a", "(1), ('x')", "holds texts and whole numbers"),
        ("a INTEGER", "('x')", "declared INTEGER and holds texts"),
        ("a TEXT", "(x'00')", "declared TEXT and holds bytes"),
        ("a DATE", "('29.02.2024')", "declared DATE and has texts that are no times"),
        ("a TIMESTAMP", "('2024-01-01T00:00:00Z'), ('2024-01-01 00:00:00')", "some with a zone and some without"),
    ],
)
def test_sqlite_columns_of_mixed_types_are_refused(
    tmp_path: Path, lite: sqlite3.Connection, column: str, values: str, says: str
) -> None:
    lite.execute(f"CREATE TABLE t ({column})")
    lite.execute(f"INSERT INTO t VALUES {values}")
    with pytest.raises(InvalidInput) as caught:
        local(tmp_path, table="t")
    assert says in str(caught.value)


def test_sqlite_only_reads(tmp_path: Path, lite: sqlite3.Connection) -> None:
    lite.execute("CREATE TABLE t (id INTEGER)")
    lite.execute("INSERT INTO t VALUES (1)")
    for query in ("DELETE FROM t", "SELECT 1; DELETE FROM t", "WITH x AS (SELECT 1) DELETE FROM t"):
        with pytest.raises(InvalidInput):
            local(tmp_path, query=query)
    assert frame(local(tmp_path, table="t")).height == 1
    with pytest.raises(NotFound, match="no such table"):
        local(tmp_path, table="u")
    (tmp_path / "y.db").write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(InvalidInput, match="no sound SQLite file"):
        read_source(Source(sql="sqlite:y.db", table="t"), project=tmp_path)
    with pytest.raises(NotFound, match=r'did you mean "x\.db"'):
        read_source(Source(sql="sqlite:xx.db", table="t"), project=tmp_path)


def test_sqlite_goes_on_where_it_ended_to_the_microsecond(tmp_path: Path, lite: sqlite3.Connection) -> None:
    lite.execute("CREATE TABLE t (id INTEGER, at TIMESTAMP)")
    lite.execute("INSERT INTO t VALUES (1, '2024-01-01 00:00:00.000001'), (2, '2024-01-01T00:00:00.000002')")
    for column in ("id", "at"):
        lite.execute("DELETE FROM t WHERE id > 2")
        with local(tmp_path, table="t", watermark=column) as first:
            assert first.mode == "whole"
        with local(tmp_path, first.watermark, table="t", watermark=column) as nothing:
            assert not nothing.is_new
        lite.execute("INSERT INTO t VALUES (3, '2024-01-01 00:00:00.000003')")
        with local(tmp_path, first.watermark, table="t", watermark=column) as more:
            assert more.frame is not None and more.frame.collect()["id"].to_list() == [3]
    found = probe(Source(sql="sqlite:x.db", table="t", watermark="at"), {"id": "integer"}, project=tmp_path)
    assert found.is_good and found.newest is not None
    assert found.newest.replace(microsecond=0) == datetime(2024, 1, 1, tzinfo=UTC)


def test_a_table_without_rows_keeps_its_columns(server: str, tmp_path: Path, lite: sqlite3.Connection) -> None:
    ask(server, "CREATE TABLE bare (id bigint, t text)")
    lite.execute("CREATE TABLE bare (id INTEGER, t TEXT)")
    for reading in (read(server, table="bare"), local(tmp_path, table="bare")):
        assert dict(frame(reading).schema) == {"id": pl.Int64, "t": pl.String}


def test_postgresql_is_read_over_tls_and_only_from_a_server_that_the_authority_vouches_for(
    server: str, tmp_path: Path
) -> None:
    ask(server, "CREATE TABLE sealed AS SELECT n, 'ä,\n' || n AS word FROM generate_series(1, 30000) AS n")
    plain = frame(read(server, table="sealed"))
    ours, others = Authority("ours", tmp_path), Authority("others", tmp_path)
    with served_over_tls(server, ours.certify("127.0.0.1")):
        trusted = f"{server}?sslmode=verify-full&sslrootcert={ours.path}"
        assert frame(read(trusted, table="sealed")).equals(plain)
        with pytest.raises(InvalidInput, match=r"cannot be trusted: .*certificate verify failed.* sslrootcert names"):
            read(f"{server}?sslmode=verify-full&sslrootcert={others.path}", table="sealed")
        with pytest.raises(InvalidInput, match=r"cannot be trusted: .*root certificate file .* does not exist"):
            read(f"{server}?sslmode=verify-full&sslrootcert={tmp_path / 'absent.pem'}", table="sealed")
    elsewhere = served_over_tls(server, ours.certify("192.0.2.1"))
    with elsewhere, pytest.raises(InvalidInput, match=r"cannot be trusted: .* does not match host name"):
        read(f"{server}?sslmode=verify-full&sslrootcert={ours.path}", table="sealed")
    with pytest.raises(InvalidInput, match=r"cannot be trusted: .*server does not support SSL"):
        read(f"{server}?sslmode=require", table="sealed")


class Authority:
    """A certificate authority whose certificate is in the file `path`."""

    def __init__(self, name: str, folder: Path) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.path = folder / f"{name}.pem"
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        own = self._signed(self._name, self._key.public_key()).add_extension(constraints, critical=True)
        self.path.write_bytes(own.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def certify(self, address: str) -> tuple[bytes, bytes]:
        """Return the certificate of a server at an address, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, address)])
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))])
        made = self._signed(name, key.public_key()).add_extension(names, critical=False)
        kept = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return made.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM), kept

    def _signed(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        begun = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key)
        begun = begun.serial_number(x509.random_serial_number())
        return begun.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))


@contextmanager
def served_over_tls(server: str, certificate: tuple[bytes, bytes]) -> Iterator[None]:
    """Let the server speak TLS with a certificate, for whoever asks for it, until this is left."""
    with psycopg.connect(server, autocommit=True) as connection:
        (data,) = connection.execute("SHOW data_directory").fetchone() or ("",)
    for name, content in zip(("server.crt", "server.key"), certificate, strict=True):
        path = Path(data) / name
        path.write_bytes(content)
        path.chmod(0o600)
        os.chown(path, (found := path.parent.stat()).st_uid, found.st_gid)  # which the server demands of its key
    ask(server, "ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()")
    try:
        wait_until(lambda: speaks_tls(server))
        yield
    finally:
        ask(server, "ALTER SYSTEM RESET ssl", "SELECT pg_reload_conf()")
        wait_until(lambda: not speaks_tls(server))


def speaks_tls(server: str) -> bool:
    with psycopg.connect(server) as connection:
        return connection.pgconn.ssl_in_use


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = monotonic() + 20
    while not holds():
        assert monotonic() < deadline, "the server did not take up its settings within 20 s"
