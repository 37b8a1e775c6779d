"""Predictions beyond one request: tables scored into data sets, SQL with `predict` and `anomaly`, streams.

Rows are read as whoever asks may see them (`frame`), so a model is never given what its caller may not read.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyball.clock import format_instant, parse_instant
from flyball.errors import FlyballError, InvalidInput, NotFound
from flyball.ledger.refs import Ref, ref
from flyball.ledger.versions import Version
from flyball.platform.acting import LoopActs
from flyball.platform.runs import RunActs
from flyball.platform.serving import ServingActs

if TYPE_CHECKING:
    import polars as pl

    from flyball.ledger.runs import Run
    from flyball.serving.scoring.queries import Function
    from flyball.serving.scoring.scorer import Errors, Scorer
    from flyball.serving.scoring.strangeness import Strangeness
    from flyball.serving.scoring.streaming import Tally
    from flyball.serving.scoring.tables import Job
    from flyball.serving.scoring.topics import Message, Sink, Source
    from flyball.tracking.runs import ActiveRun

__all__ = ["ScoringActs"]

KIND = "scoring"  # of runs
_ASK_AGAIN_S = 1.0
_log = logging.getLogger("flyball.scoring")
ANOMALY = "anomaly"  # the output of a model that finds anomalies: the higher, the stranger


class ScoringActs(LoopActs, RunActs, ServingActs):
    """Predictions beyond one request."""

    def scorer(self, target: str | Ref, errors: Errors = "refuse", at: datetime | None = None) -> Scorer:
        """Return what answers rows by one version.

        Args:
            target: a deployment, whose champion answers, or a version that it serves; else a model, `late`, `late@2`,
                `model/late@champion`, whose rows give all inputs. A name that is both is the deployment.
            errors: `refuse` or `null`, see `serving.scoring.scorer`.
            at: look features up as of then; default: now.

        Raises:
            NotFound, Corrupt, Forbidden, Incompatible, MissingExtra: it cannot be loaded.
        """
        from flyball.serving.scoring.scorer import Scorer, check_errors, variant_of

        self._may("predict")
        check_errors(errors)
        found = ref(str(target)) if "/" in str(target) else ref(str(target), "deployment")
        if found.kind == "deployment":
            served = self._served(found, is_only="/" in str(target))
            if served is not None:
                return replace(served, errors=errors, at=at)
        version = self.version(Ref("model", found.name, found.version or "champion"))
        by = variant_of(version.ref.short, self.load(version.ref))
        return Scorer(found.name, 0, by, self.engine, at, errors)

    def _served(self, target: Ref, *, is_only: bool) -> Scorer | None:
        """Return a deployment's scorer; None where there is none of that name, or it does not serve that version.

        Args:
            is_only: it must be the deployment.
        """
        from flyball.serving.scoring.scorer import Scorer

        try:
            found = self.engine.refresh().find(target.name)
            champion = found.by_name.get("champion", found.variants[0])
            by = champion if target.version in (None, "champion") else found.of_version(str(target.version))
        except NotFound:
            if is_only:
                raise
            return None
        return Scorer(found.name, found.deployment.revision, by, self.engine)

    # -- tables

    def score(
        self,
        target: str | Ref,
        source: Any,
        *,
        keep: Sequence[str] = (),
        errors: Errors = "refuse",
        at: str | datetime | None = None,
        threads: int = 1,
        purpose: str | None = None,
    ) -> pl.DataFrame:
        """Return the answers for all rows of a table, in memory; one row each, in order. See `score_into`."""
        import polars as pl

        job, _, _ = self._job(target, source, "", keep, errors, at, threads, purpose)
        return pl.concat(list(job.answers()), how="vertical_relaxed")

    def score_into(
        self,
        target: str | Ref,
        source: Any,
        output: str | Ref,
        *,
        keep: Sequence[str] = (),
        errors: Errors = "refuse",
        at: str | datetime | None = None,
        threads: int = 1,
        log: bool = False,
        purpose: str | None = None,
        note: str = "",
    ) -> Version:
        """Score a table into a data set: one row for each row, in order, whatever is killed in between.

        The same rows, version and options are the same version again, without work, unless features are looked up now.
        A call that was killed is gone on with by the same call.

        Args:
            target: see `scorer`.
            source: a data set (`flights`, `flights@3`), a path or glob, or a frame.
            output: the data set that the answers become the next version of; declared when it is new. Its columns are
                `keep`, `prediction_id`, `version`, the outputs, and with errors="null" `reason`.
            keep: columns of the rows to stand beside the answers.
            errors: `refuse` all for the first row that cannot be answered, or answer it with nulls and a reason.
            at: features as of then: an instant, or the name of a column that says when each row was; default: now.
            threads: how many call the model at once.
            log: tell the prediction log of each row too, with the ids of the answers. After a crash it may have rows
                twice, under the same id.
            purpose: what the rows are read for, where the data set or a policy asks for it.
            note: a sentence that stays with the version.

        Raises:
            NotFound: no such model, data set, version or file.
            InvalidInput: a row or a column is wrong, or there is no row.
            Forbidden: the rows may not be read, or the answers not be published.
            Conflict: another process scores the same.
            StepFailed: the model failed. Parts that are done are kept for the next call, here as in a crash.
            Unavailable: the disk is full.
        """
        from flyball.serving.scoring.tables import Parts, check_count

        self._may("publish")
        name = ref(str(output), "dataset").name if "/" not in str(output) else ref(str(output)).name
        job, read, rows = self._job(target, source, name, keep, errors, at, threads, purpose)
        if rows == 0:
            raise InvalidInput("there are no rows to score; nothing was published")
        parts = Parts(self.home / "scoring" / job.digest[:32])
        with parts.claimed():
            before = self.runs(kind=KIND, cache_key=job.digest, limit=20)
            if job.is_pinned and (known := self._published(before)) is not None:
                parts.remove()
                return known
            if not job.is_pinned and all(run.status != "running" for run in before):
                parts.clear()  # of a run that failed: its features were those of another day
            params = {"model": job.scorer.version, "output": name, "errors": errors, "keep": list(keep)}
            if read is not None:
                params["input"] = str(read)
            run = self._run_of(before, job, params)
            job = self._at_of(job, run, at)
            with run, self._log_of(job, log) as logged:
                versions = [(part, "scored by") for part in _answering(job.scorer.version)]
                versions += [(read, "scored")] if read is not None else []
                for used, role in versions:
                    run.use(used, role)
                done = parts.fill(logged, lambda safe: run.result(rows_done=safe))
                check_count(rows, done)
                if name not in [one.name for one in self.resources("dataset")]:
                    self.declare("dataset", name)
                made = self.datasets.publish(
                    name,
                    parts.frame(),
                    actor=self.actor,
                    run=run.id,
                    made_from=versions,
                    note=note,
                    columns={one: [(str(read), one, "direct")] for one in keep} if read is not None else None,
                )
                run.result(version=str(made.version.ref), rows=done)
            parts.remove()
        return made.version

    # -- streams

    def score_stream(
        self,
        target: str | Ref,
        source: str,
        output: str,
        *,
        dead_letters: str | None = None,
        group: str | None = None,
        keep: Sequence[str] = (),
        log: bool = False,
        client: Mapping[str, str] | None = None,
        until_idle_s: float | None = None,
        stop: threading.Event | None = None,
    ) -> Tally:
        """Answer the messages of a topic into another until told to stop; see `serving.scoring.streaming`.

        Args:
            target: see `scorer`; a deployment's champion is whoever it is at each moment.
            source: `stream://name`, a topic in this home, or `kafka://host:9092/topic`. A message is a JSON object;
                of its fields those that the model takes are read.
            output: where the answers go to; `dead_letters`: where messages go that cannot be answered. Without that
                the first such message ends the stream, uncommitted.
            group: who shares the topic; default: `flyball-` and the target's name.
            keep: fields of a message that its answer repeats.
            log: tell the prediction log of each answer too.
            client: settings of librdkafka; `${NAME}` is taken from the environment.
            until_idle_s: end when nothing came for so long; default: only when told to stop.

        Raises:
            NotFound: no such model.
            InvalidInput: an address or a setting is wrong, or a message without a topic of dead letters.
            MissingExtra: the client of Kafka is not installed.
        """
        from contextlib import ExitStack, closing

        from flyball.serving.scoring.streaming import Streaming
        from flyball.tracking.predictions import PredictionLog

        self._may("predict")
        first = self.scorer(target)
        name = group or f"flyball-{first.name}"
        with ExitStack() as scope:
            taking = scope.enter_context(closing(self._source(source, name, client)))
            answers = scope.enter_context(closing(self._sink(output, client)))
            dead = scope.enter_context(closing(self._sink(dead_letters, client))) if dead_letters else None
            telling = None
            if log:
                masks = self._masks_of(first)
                telling = scope.enter_context(closing(PredictionLog(self.home / "traffic", "scoring", masks=masks)))
            scorer = self._newest(target, first)
            streaming = Streaming(scorer, taking, answers, dead, keep, telling, until_idle_s, clock=self.clock)
            return streaming.run(stop or threading.Event())

    def topic_put(self, name: str, values: Sequence[bytes]) -> list[str]:
        """Append messages to a topic of this home, `stream://name`, and return their ids; durable on return."""
        from flyball.serving.scoring.topics import EmbeddedSink, topic_folder

        self._may("predict")
        sink = EmbeddedSink(topic_folder(self.home, name))
        try:
            return sink.put(values)
        finally:
            sink.close()

    def topic_read(self, name: str, limit: int = 100) -> list[Message]:
        """Return the first messages of a topic of this home; moves no group's cursor."""
        from flyball.serving.scoring.topics import messages_in, topic_folder

        self._may("predict")
        return messages_in(topic_folder(self.home, name), limit)

    def _source(self, url: str, group: str, client: Mapping[str, str] | None) -> Source:
        from flyball.serving.scoring.kafka import KafkaSource
        from flyball.serving.scoring.topics import EmbeddedSource, topic_folder

        if url.startswith("stream://"):
            return EmbeddedSource(topic_folder(self.home, url.removeprefix("stream://")), group)
        return KafkaSource(url, group, client)

    def _sink(self, url: str, client: Mapping[str, str] | None) -> Sink:
        from flyball.serving.scoring.kafka import KafkaSink
        from flyball.serving.scoring.topics import EmbeddedSink, topic_folder

        if url.startswith("stream://"):
            return EmbeddedSink(topic_folder(self.home, url.removeprefix("stream://")))
        return KafkaSink(url, client)

    def _newest(self, target: str | Ref, first: Scorer) -> Callable[[], Scorer]:
        """Return what asks, once a second at most, who answers now; whoever did before, while nobody new can be had."""
        current, asked = first, self.clock.monotonic()

        def scorer() -> Scorer:
            nonlocal current, asked
            if self.clock.monotonic() - asked > _ASK_AGAIN_S:
                try:
                    current = self.scorer(target)
                except FlyballError as error:
                    _log.warning("%s goes on answering: %s", current.version, error)
                asked = self.clock.monotonic()
            return current

        return scorer

    def _masks_of(self, scorer: Scorer) -> dict[str, frozenset[str]] | None:
        served = self.engine.lineup.served.get(scorer.name)
        return {scorer.name: frozenset(served.deployment.mask)} if served is not None else None

    # -- SQL

    def sql(
        self, query: str, *, errors: Errors = "refuse", purpose: str | None = None, external: bool = False
    ) -> pl.DataFrame:
        """Return the rows of a SELECT over data sets, in which `predict` and `anomaly` may stand.

        `SELECT *, predict('late', distance, hour).probability AS p FROM flights`; see `serving.scoring.queries`.

        Args:
            query: tables are data sets, `flights` or `"flights@3"`.
            errors: what becomes of rows that a model cannot answer: `refuse` the query, or `null`.
            purpose: what the rows are read for, where a data set or a policy asks for it.
            external: let the query read files and the network too, as whoever runs this process could.

        Raises:
            InvalidInput: wrong SQL, no data set of that name, or arguments that a model cannot take.
            NotFound: no such model or version.
            Forbidden: a data set may not be read; or `external`, for anybody but an admin.
            MissingExtra: DuckDB is not installed.
        """
        from flyball.serving.scoring.queries import Query, run

        self._may("trust" if external else "read")
        names = [one.name for one in self.resources("dataset")]

        def table(name: str) -> Any:
            try:
                found = ref(name, "dataset")
            except InvalidInput:
                return None
            if found.name not in names or found.kind != "dataset":
                return None
            found, version = self._found(found, None)
            rows = self.datasets.frame(found.name, version.number, found.kind)
            shown = self._shown(found, rows, purpose)
            self.usage.record(self.actor, version.ref, purpose or "")
            return (self.tables.paths(version.digest) if shown is rows else None) or shown

        def function(word: str, target: str) -> Function:
            return self._function(word, target, errors, purpose)

        return run(query, Query(table, lambda: names, function, external))

    def _function(self, word: str, target: str, errors: Errors, purpose: str | None) -> Function:
        import polars as pl

        from flyball.models.fields import Field
        from flyball.serving.scoring.queries import Function

        scorer = self.scorer(target, errors)
        subject = f"{word}('{target}')"
        inputs = tuple(scorer.fields)
        if scorer.by.features is not None:
            known = [field.name for field in inputs]
            inputs += tuple(Field(n, "string", True) for n in scorer.by.features.fields if n not in known)
        if word == "predict":
            return Function(subject, inputs, scorer.outputs, lambda rows: scorer.answer(rows)[0])
        if any(field.name == ANOMALY for field in scorer.outputs):
            own = tuple(field for field in scorer.outputs if field.name == ANOMALY)
            return Function(subject, inputs, own, lambda rows: scorer.answer(rows)[0].select(ANOMALY))
        strange = self._strangeness(scorer, purpose)
        fields = tuple(field for field in scorer.by.model.signature.inputs if field.name in strange.columns)
        score = (Field(ANOMALY, "float64"),)
        return Function(subject, fields, score, lambda rows: pl.DataFrame({ANOMALY: strange.of(rows)}))

    def _strangeness(self, scorer: Scorer, purpose: str | None) -> Strangeness:
        """Return what tells how unlike its training rows are, by the columns that may be seen. Raises NotFound."""
        from flyball.data.blocks import Blocks
        from flyball.serving.scoring.strangeness import Strangeness

        version = self.version(_answering(scorer.version)[0])
        kept, learnt = version.metadata.get("reference") or {}, version.metadata.get("trained_on")
        if learnt is None or "blob" not in kept:
            why = kept.get("why") or "register it with the rows that it learnt from"
            raise NotFound(
                f"{scorer.version} gives no score of its own, and nothing is kept of what it learnt from: {why}"
            )
        blocks = Blocks.from_bytes(self.blobs.get(kept["blob"]))
        hidden = self.looked_at(ref(learnt), list(blocks.profiles), purpose)
        return Strangeness({name: one for name, one in blocks.profiles.items() if name not in hidden})

    def _job(
        self,
        target: str | Ref,
        source: Any,
        output: str,
        keep: Sequence[str],
        errors: Errors,
        at: str | datetime | None,
        threads: int,
        purpose: str | None,
    ) -> tuple[Job, Ref | None, int]:
        """Return a job, the version whose rows it reads, if it is one, and how many they are."""
        import polars as pl

        from flyball.serving.scoring.scorer import check_kept
        from flyball.serving.scoring.tables import Job, digest_of, digest_of_rows

        if not 1 <= threads <= 256:
            raise InvalidInput(f"threads is {threads}; expected 1 to 256")
        rows, read, input_digest = self._rows(source, purpose)
        count: int | None = None
        if input_digest is None:
            input_digest, count = digest_of_rows(rows)
        schema = rows.collect_schema()
        by_row = at if isinstance(at, str) and at in schema else None
        instant = None if by_row is not None else parse_instant(at) if isinstance(at, str) else at
        scorer = self.scorer(target, errors, instant)
        features = [dict(document) for document in self._features_of(scorer)]
        if by_row is not None:
            if features:
                names = [str(d.get("name", d.get("on_request"))) for d in features]
                rows = self.training_set(rows, names, by_row, purpose=purpose)
            whole = replace(scorer.by, request=scorer.by.model.signature, looked_up=None, features=None)
            scorer = replace(scorer, by=whole)
            schema = rows.collect_schema()
        needed = scorer.needed(schema)
        check_kept(keep, schema, scorer.outputs)
        facts = {
            "input": input_digest,
            "model": scorer.by.variant.bundle,
            "version": scorer.version,
            "name": scorer.name,
            "features": features,
            "at": by_row or (format_instant(instant) if instant is not None else "now"),
            "errors": errors,
            "keep": list(keep),
            "output": output,
            "format": 1,
        }
        if count is None:
            count = int(rows.select(pl.len()).collect(engine="streaming").item())
        is_pinned = instant is not None or not (features if by_row is not None else scorer.looks_up)
        job = Job(digest_of(facts), rows, scorer, needed, tuple(keep), threads, clock=self.clock, is_pinned=is_pinned)
        return job, read, count

    def _rows(self, source: Any, purpose: str | None) -> tuple[pl.LazyFrame, Ref | None, str | None]:
        """Return rows, the version that they are, and a digest of their content where it is known without reading."""
        from flyball.data.sources import open_source
        from flyball.serving.scoring.tables import digest_of

        found = self._dataset_of(source)
        if found is None:
            self._may("read")
            return open_source(source), None, None
        version = self._found(found, None)[1]
        rows = self.frame(version.ref, purpose=purpose)
        dataset, made_of = self._behind(version.ref)
        decision = self.guard.decision(dataset, rows.collect_schema().names(), self.principal, purpose, made_of)
        masks = {name: repr(mask) for name, mask in sorted(decision.masks.items())}
        return rows, version.ref, digest_of({"rows": version.digest, "masks": masks})

    def _dataset_of(self, source: Any) -> Ref | None:
        if isinstance(source, Ref):
            return source
        if not isinstance(source, str) or Path(source).exists():
            return None
        try:
            found = ref(source) if "/" in source else ref(source, "dataset")
        except InvalidInput:
            return None
        is_known = "/" in source or found.name in [one.name for one in self.resources("dataset")]
        return found if is_known and found.kind in ("dataset", "feature", "quarantine", "labels") else None

    def _features_of(self, scorer: Scorer) -> Sequence[Any]:
        served = self.engine.lineup.served.get(scorer.name)
        return served.deployment.features if served is not None and scorer.by.features is not None else ()

    def _published(self, before: Sequence[Run]) -> Version | None:
        for run in before:
            kept = run.result.get("version")
            if run.status == "succeeded" and kept:
                try:
                    return self.version(str(kept))
                except NotFound:
                    continue
        return None

    def _run_of(self, before: Sequence[Run], job: Job, params: dict[str, Any]) -> ActiveRun:
        """Return the run of a job that was killed, to go on with it, or a new one. The job is claimed."""
        from flyball.tracking.runs import ActiveRun

        for run in before:
            if run.status == "running":
                return ActiveRun(run, self.recorder, self.ledger, self.blobs, self.clock)
        name = f"score-{job.scorer.name}"
        if job.scorer.looks_up:
            params["at"] = format_instant(job.scorer.at or self.clock.now())
        return self.start_run(name, KIND, cache_key=job.digest, params=params)

    def _at_of(self, job: Job, run: ActiveRun, at: str | datetime | None) -> Job:
        """Return the job with the instant of its features: of one that goes on, when it began."""
        if not job.scorer.looks_up or at is not None:
            return job
        instant = parse_instant(str(self.run(run.id).params["at"]))
        return replace(job, scorer=replace(job.scorer, at=instant))

    @contextmanager
    def _log_of(self, job: Job, is_logged: bool) -> Iterator[Job]:
        if not is_logged:
            yield job
            return
        from flyball.tracking.predictions import PredictionLog

        log = PredictionLog(self.home / "traffic", "scoring", masks=self._masks_of(job.scorer))
        try:
            yield replace(job, log=log)
        finally:
            log.close()


def _answering(version: str) -> list[Ref]:
    """Return the model versions that answer as `late@2`, or together as a routine's `late@2+weather@5`."""
    return [Ref("model", *part.split("@")) for part in version.split("+")]
