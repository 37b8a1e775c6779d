"""Open the database, hold transactions, hold leases."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, create_engine, event, select, update
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, OperationalError, SQLAlchemyError

from flyball.clock import SYSTEM, Clock, format_instant
from flyball.errors import Corrupt, InvalidInput, MissingExtra, Unavailable
from flyball.ledger import Fence
from flyball.ledger.sql.access_keys import SqlAccessKeys
from flyball.ledger.sql.artifacts import SqlArtifacts
from flyball.ledger.sql.deliveries import SqlDeliveries
from flyball.ledger.sql.evaluation_sets import SqlEvaluationSets
from flyball.ledger.sql.experiments import SqlExperiments
from flyball.ledger.sql.journal import SqlJournal
from flyball.ledger.sql.lineage import SqlLineage
from flyball.ledger.sql.logged_models import SqlLoggedModels
from flyball.ledger.sql.migrate import bring_up_to_date
from flyball.ledger.sql.notes import SqlNotes
from flyball.ledger.sql.papers import SqlPapers
from flyball.ledger.sql.points import SqlPoints
from flyball.ledger.sql.promotions import SqlPromotions
from flyball.ledger.sql.reindexing import reindex
from flyball.ledger.sql.removal import SqlRemoval
from flyball.ledger.sql.resources import SqlResources
from flyball.ledger.sql.run_columns import SqlRunColumns
from flyball.ledger.sql.runs import SqlRuns
from flyball.ledger.sql.scorers import SqlScorers
from flyball.ledger.sql.search import SqlSearch, forget_replaced
from flyball.ledger.sql.session import Session
from flyball.ledger.sql.tables import artifacts, events, leases, runs, search_entries, versions
from flyball.ledger.sql.traces import SqlTraces
from flyball.ledger.sql.tracking_tables import point_chunks, point_journal
from flyball.ledger.sql.versions import SqlVersions

__all__ = ["LedgerSettings", "SqlLedger", "SqlTransaction", "open_ledger"]


@dataclass(frozen=True)
class LedgerSettings:
    """`[ledger]` in flyball.toml, `FLYBALL_LEDGER_…` in the environment."""

    url: str = ""  # postgresql://user@host/database; empty: ledger.db in the home, which needs no server
    synchronous: str = "FULL"  # SQLite only: FULL survives a power cut, NORMAL only a crash of the process
    busy_timeout_s: float = 30.0  # how long a writer waits for another; SQLite has one writer at a time


def open_ledger(home: Path, settings: LedgerSettings | None = None, clock: Clock = SYSTEM) -> SqlLedger:
    """Open the ledger of a home, creating or migrating its schema.

    Raises:
        Incompatible: it was written by a newer release.
        Unavailable: the database cannot be reached, or is locked by others for too long.
        InvalidInput: the URL is not one of SQLite or PostgreSQL.
    """
    settings = settings or LedgerSettings()
    engine = _postgres(settings) if settings.url else _sqlite(home, settings)
    try:
        bring_up_to_date(engine, None if settings.url else home / "ledger.lock")
        reindex(engine)
    except OperationalError as error:
        engine.dispose()
        raise Unavailable(f"the ledger cannot be opened: {_first_line(error)}") from error
    except DBAPIError as error:
        engine.dispose()
        raise Corrupt(f"the ledger cannot be read: {_first_line(error)}") from error
    return SqlLedger(engine, clock)


class SqlTransaction:
    """One transaction; the nouns share its session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.journal = SqlJournal(session)
        self.lineage = SqlLineage(session)
        self.search = SqlSearch(session)
        self.resources = SqlResources(session, self.journal, self.search)
        self.experiments = SqlExperiments(session, self.journal)
        self.points = SqlPoints(session)
        self.run_columns = SqlRunColumns(session)
        self.runs = SqlRuns(session, self.journal, self.search, self.experiments)
        self.artifacts = SqlArtifacts(session)
        self.logged_models = SqlLoggedModels(session, self.journal, self.experiments)
        self.traces = SqlTraces(session, self.journal, self.experiments)
        self.evaluation_sets = SqlEvaluationSets(session, self.experiments)
        self.scorers = SqlScorers(session, self.experiments)
        self.removal = SqlRemoval(session, self.journal, self.search)
        self.versions = SqlVersions(session, self.journal, self.lineage, self.search)
        self.notes = SqlNotes(session, self.journal, self.search, self.resources, self.versions)
        self.promotions = SqlPromotions(session, self.journal)
        self.papers = SqlPapers(session, self.journal, self.versions)
        self.deliveries = SqlDeliveries(session)
        self.access_keys = SqlAccessKeys(session, self.journal)

    def part(self, actor: str, cause: int | None = None, *, is_checked: bool = False) -> AbstractContextManager[None]:
        return self.session.acting(actor, cause) if is_checked else self._undoable(actor, cause)

    @contextmanager
    def _undoable(self, actor: str, cause: int | None) -> Iterator[None]:
        with self.session.acting(actor, cause):
            self.search.flush()
            try:
                with self.session.undoable():
                    yield
                    self.search.flush()
            except BaseException:
                self.search.forget()
                raise


class SqlLedger:
    """The `Ledger` over an engine; safe to share between threads."""

    def __init__(self, engine: Engine, clock: Clock = SYSTEM) -> None:
        self.engine = engine
        self.clock = clock
        self._driver: Any = engine.dialect.dbapi  # whose errors plain SQL raises

    @contextmanager
    def read(self) -> Iterator[SqlTransaction]:
        with self._session("BEGIN", None, None) as session:
            yield SqlTransaction(session)

    @contextmanager
    def write(self, actor: str, cause: int | None = None, fence: Fence | None = None) -> Iterator[SqlTransaction]:
        with self._session("BEGIN IMMEDIATE", actor, cause) as session:
            transaction = SqlTransaction(session)
            if fence is not None:
                self._check(session.connection, fence)
            yield transaction
            transaction.search.flush()
            session.commit()

    def acquire(
        self, lease: str, holder: str, ttl_s: float, is_dead: Callable[[str], bool] = lambda _holder: False
    ) -> Fence | None:
        now = self.clock.now()
        until = format_instant(now + timedelta(seconds=ttl_s))
        with self.write(holder) as transaction:
            connection = transaction.session.connection
            # The insert takes the row's lock, so that two holders asking at once are put in order.
            fresh = transaction.session.insert(leases).values(lease=lease, holder=holder, epoch=1, expires_at=until)
            if connection.execute(fresh.on_conflict_do_nothing().returning(leases.c.epoch)).one_or_none() is not None:
                return Fence(lease, holder, 1)
            row = connection.execute(select(leases).where(leases.c.lease == lease).with_for_update()).one()
            if row.holder != holder and row.expires_at > format_instant(now) and not is_dead(row.holder):
                return None
            epoch = row.epoch if row.holder == holder else row.epoch + 1
            change = update(leases).where(leases.c.lease == lease)
            connection.execute(change.values(holder=holder, epoch=epoch, expires_at=until))
            return Fence(lease, holder, epoch)

    def release(self, fence: Fence) -> None:
        with self.write(fence.holder) as transaction:
            mine = (
                leases.c.lease == fence.lease,
                leases.c.holder == fence.holder,
                leases.c.epoch == fence.epoch,
            )
            gone = format_instant(self.clock.now() - timedelta(seconds=1))
            transaction.session.connection.execute(update(leases).where(*mine).values(expires_at=gone))

    def compact(self) -> None:
        raw: Any = self.engine.raw_connection()  # VACUUM runs outside transactions, which SQLAlchemy opens by itself
        try:
            if self.engine.dialect.name == "sqlite":
                for command in (forget_replaced, "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
                    raw.cursor().execute(command).fetchall()
                return
            raw.driver_connection.autocommit = True
            try:
                for table in (
                    *(t.name for t in (versions, runs, artifacts, events, search_entries, point_journal, point_chunks)),
                    *("search_text", "deliveries", "logged_models"),
                    *("traces", "trace_spans", "trace_marks", "assessments", "evaluation_records"),
                ):
                    raw.cursor().execute(f"VACUUM (FULL) {table}")
            finally:
                raw.driver_connection.autocommit = False
        except self.engine.dialect.dbapi.OperationalError as error:  # type: ignore[union-attr]
            raise Unavailable(f"the ledger could not be compacted: {str(error).splitlines()[0]}; try again") from error
        finally:
            raw.close()

    def close(self) -> None:
        self.engine.dispose()

    def _check(self, connection: Connection, fence: Fence) -> None:
        row = connection.execute(select(leases).where(leases.c.lease == fence.lease).with_for_update()).one_or_none()
        if row is None or row.holder != fence.holder or row.epoch != fence.epoch:
            raise Unavailable(f"another control plane has taken over the lease {fence.lease!r}; nothing was written")

    @contextmanager
    def _session(self, begin: str, actor: str | None, cause: int | None) -> Iterator[Session]:
        try:
            session = Session(self.engine, self.engine.raw_connection(), self.clock, actor, cause)
            try:
                session.begin(begin)
                yield session
            finally:
                session.close()
        except OperationalError as error:
            raise Unavailable(f"the ledger did not answer: {_first_line(error)}; nothing was changed") from error
        except DBAPIError as error:
            if isinstance(error.orig, sqlite3.DatabaseError) and "malformed" in str(error.orig):
                raise Corrupt(f"the ledger is damaged: {_first_line(error)}; restore it from a backup") from error
            raise
        except self._driver.OperationalError as error:
            raise Unavailable(f"the ledger did not answer: {_first(error)}; nothing was changed") from error
        except self._driver.DatabaseError as error:
            if isinstance(error, sqlite3.DatabaseError) and "malformed" in str(error):
                raise Corrupt(f"the ledger is damaged: {_first(error)}; restore it from a backup") from error
            raise


def _sqlite(home: Path, settings: LedgerSettings) -> Engine:
    home.mkdir(parents=True, exist_ok=True)
    if settings.synchronous.upper() not in ("FULL", "NORMAL"):
        raise InvalidInput(f"[ledger] synchronous is {settings.synchronous!r}; expected FULL or NORMAL")
    engine = create_engine(
        f"sqlite:///{home / 'ledger.db'}",
        connect_args={"timeout": settings.busy_timeout_s, "check_same_thread": False},
        json_serializer=_dumps,
        json_deserializer=orjson.loads,
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions are opened below, not by the driver
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={settings.synchronous}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        statement = connection.get_execution_options().get("flyball_begin", "BEGIN IMMEDIATE")
        if statement:  # else the driver has begun already
            connection.exec_driver_sql(statement)

    return engine


def _postgres(settings: LedgerSettings) -> Engine:
    scheme, separator, rest = settings.url.partition("://")
    if not separator or scheme.split("+")[0] not in ("postgresql", "postgres"):
        raise InvalidInput(f"[ledger] url has the scheme {scheme[:40]!r}; expected postgresql://user@host/database")
    try:
        return create_engine(
            f"postgresql+psycopg://{rest}",
            pool_pre_ping=True,
            json_serializer=_dumps,
            json_deserializer=orjson.loads,
        )
    except (ImportError, NoSuchModuleError) as error:
        raise MissingExtra("psycopg", "postgres", "a ledger on PostgreSQL") from error
    except SQLAlchemyError as error:
        raise InvalidInput("[ledger] url cannot be read; expected postgresql://user@host/database") from error


def _dumps(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS).decode()


def _first_line(error: DBAPIError) -> str:
    return _first(error.orig) if error.orig else type(error).__name__


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
