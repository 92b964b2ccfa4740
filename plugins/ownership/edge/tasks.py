"""The stages as Airflow runs them: parts opened, retries, last tries, logs and metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from airflow.sdk import AssetAlias, get_current_context
from airflow.sdk.exceptions import AirflowFailException, DownstreamTasksSkipped

from ownership.domain import plan_report
from ownership.domain.conf import Approve, Decline, refuse
from ownership.domain.contracts import Pulled, Slice, Summary, Work, read, returned
from ownership.domain.errors import OwnershipError, Permanent, TakenOver, Transient, VersionError
from ownership.domain.queue import ClaimedEvent
from ownership.domain.states import EventState
from ownership.edge import assets, metrics
from ownership.edge.approvals import ALIAS, APPROVE, DECLINE, WANTED, asks
from ownership.edge.hooks import max_map_length, opened_parts
from ownership.edge.interruption import Interrupted, interruptible
from ownership.edge.operators import UNNAMED
from ownership.edge.retries import delay_seconds, seed_of
from ownership.edge.versions import missing
from ownership.ledger.events import EventRow
from ownership.stages import orders
from ownership.stages import settle as settling
from ownership.stages.approval_questions import questions
from ownership.stages.claim import Claim, Given, take_again
from ownership.stages.finished import extras
from ownership.stages.later_phases import apply_later_phases
from ownership.stages.lookup import lookup_users
from ownership.stages.parts import Parts
from ownership.stages.reindex import reindex_course_batches
from ownership.stages.update import update_course_batches

if not TYPE_CHECKING:
    __getattr__ = missing

log = structlog.get_logger(__name__)

EVENTS_LOGGED = 50
"""Failed events of a slice that get a line each; all are in the ledger."""


def lookup(work: Mapping[str, Any]) -> dict[str, Any]:
    """`lookup_users` of one slice."""
    ti = get_current_context()["ti"]
    given = read(Slice, work)
    with _opened(given) as (parts, given):
        done = _attempt(parts, partial(lookup_users, last_try=ti.try_number > ti.max_tries), given)
        metrics.users_read(parts.users.answered)
    return done.model_dump(mode="json")


def update(work: Mapping[str, Any]) -> dict[str, Any]:
    """`update_course_batches` of one slice."""
    given = read(Work, work)
    done = given.step((), events={})
    if given.phases:
        with _opened(given) as (parts, given):
            done = _attempt(parts, update_course_batches, given)
    return done.model_dump(mode="json")


def reindex(work: Mapping[str, Any]) -> dict[str, Any]:
    """`reindex_course_batches` of one slice, then all stages of the later phases of its lanes."""
    given = read(Work, work)
    done = given.step((), events={})
    if given.phases or given.waiting:
        with _opened(given) as (parts, given):
            attempt = partial(_attempt, parts)
            if given.phases:
                done = attempt(reindex_course_batches, given)
            done = apply_later_phases(parts, done, attempt)
    return done.model_dump(mode="json")


def settle(
    slices: Sequence[Mapping[str, Any]] | None,
    pulled: Mapping[str, Any] | None,
    pull_task: str = "pull_transfer_events",
) -> dict[str, Any]:
    """Release what is left, count, and skip the verdict where nothing failed.

    It never fails the run itself: it must have run to its end for the claims to be free.
    """
    ti = get_current_context()["ti"]
    if slices is None:
        return {"failures": {pull_task: "did not end: its log says why"}}
    try:
        found = read(Pulled, {**(pulled or {}), "slices": slices})
    except VersionError as e:  # its stages have failed with the same words
        with opened_parts() as parts:
            parts.queue.release_all(ti.run_id)
        return {"failures": {pull_task: str(e)}}
    with opened_parts() as parts:
        settled = settling.settle(parts, found)
    summary = settled.summary
    metrics.settled(summary.events, summary.batches)
    for milliseconds in settled.lags:
        metrics.lag(milliseconds)
    _log_summary(summary, ti.run_id)
    if summary.events.get(EventState.AWAITING_APPROVAL):
        _ask_for_approval(summary)
    _announce_finished(ti.run_id, settled.finished)
    result = summary.model_dump(mode="json")
    if summary.failures:
        return result
    ti.xcom_push(key="return_value", value=result)
    raise DownstreamTasksSkipped(tasks=["verdict"])


def _log_summary(summary: Summary, run_id: str) -> None:
    log.info("run settled", run_id=run_id, **summary.model_dump(mode="json", exclude={"plans"}))
    for plan in summary.plans:
        for line in plan_report.text(plan).splitlines():
            log.info(line)


def approvals_wanted() -> list[dict[str, Any]]:
    """The questions of this run: one for each transfer that waits for an approval and that no other run asks about.

    :raises ConfError: if the run has a conf.
    """
    context = get_current_context()
    ti, run = context["ti"], context["dag_run"]
    refuse(run.conf, dag=run.dag_id)
    with opened_parts() as parts:
        asked = questions(parts, run_id=ti.run_id, asks=asks(ti), limit=max_map_length())
    log.info("approvals wanted", mids=[q["mid"] for q in asked])
    return asked


def decide(question: Mapping[str, Any], answer: Mapping[str, Any] | None) -> str:
    """Write an answer from the UI into the ledger. Returns what became of the transfer.

    :raises ConfError: if the transfer waits with another plan by now.
    """
    answer = returned(answer, "ask")
    mid, by = question["mid"], answer["by"] or UNNAMED
    reason = (answer["reason"] or "").strip() or "no reason given"
    run_id = get_current_context()["ti"].run_id
    with opened_parts() as parts:
        if answer["chosen"] == APPROVE:
            approval = Approve(mid=mid, digest=question["digest"])
            outcome = orders.approve(parts, approval, run_id=run_id, by=by)
        elif answer["chosen"] == DECLINE:
            refusal = Decline(mid=mid, reason=reason)
            outcome = orders.decline(parts, refusal, run_id=run_id, by=by)
        else:
            outcome = "was not answered in time; the next run of user_ownership_transfer declines it"
    log.warning("approval answered", mid=mid, outcome=outcome)
    return outcome


def verdict(summary: Mapping[str, Any] | None) -> None:
    """Fail the run: events are still open, or it did not get that far.

    :raises AirflowFailException: always.
    """
    ended = Summary.model_validate(returned(summary, "settle"))
    reasons = "; ".join(f"{mid}: {why}" for mid, why in list(ended.failures.items())[:5])
    what = f"{ended.failed} events failed and will be tried again. " if ended.failed else ""
    raise AirflowFailException(what + reasons)


def _ask_for_approval(summary: Summary) -> None:
    """Start the approval DAG; the event's content is for people, the DAG asks the ledger."""
    waiting: list[Any] = [p.mid for p in summary.plans if p.state == EventState.AWAITING_APPROVAL]
    get_current_context()["outlet_events"][AssetAlias(ALIAS)].add(WANTED, extra={"mids": waiting})


def _announce_finished(run_id: str, finished: Sequence[EventRow]) -> None:
    """Update the assets of table and index, for DAGs that are scheduled on them."""
    events = get_current_context()["outlet_events"][AssetAlias(assets.FINISHED)]
    for extra in extras(run_id, finished):
        for asset in (assets.TABLE, assets.INDEX):
            events.add(asset, extra=extra)


@contextmanager
def _opened(given: Given) -> Iterator[tuple[Parts, Given]]:
    """What a stage works with and on. If the task is told to end, any run may go on with its events at once.

    :raises Stopped: at the end of the block, if it was told so.
    """
    ti = get_current_context()["ti"]
    with interruptible(), opened_parts() as parts:
        try:
            if ti.try_number > 1:
                given = take_again(parts, given)
            yield parts, given
        except Interrupted:
            log.warning("stage interrupted", task=ti.task_id, run_id=ti.run_id, try_number=ti.try_number)
            parts.queue.release([*given.claimed, *given.waiting], next_try_ms=0)
            raise


def _attempt(parts: Parts, stage: Callable[[Parts, Given], Work], given: Given) -> Work:
    """Run a stage; hand its failure on as an outcome at the last try, else hold the claim for a retry."""
    name = (stage.func if isinstance(stage, partial) else stage).__name__
    bound = log.bind(stage=name, run_id=given.run_id, slice=given.label)
    try:
        done = stage(parts, given)
    except TakenOver as e:
        bound.warning("taken over", why=str(e))
        return given.step((), events={"taken_over": len(given.claimed)})
    except OwnershipError as e:
        return _failed(parts, given, e, bound)
    bound.info("stage done", **done.model_dump(mode="json", include={"events", "batches", "failures"}))
    return done


def _failed(parts: Parts, given: Slice | Work, error: OwnershipError, bound: Any) -> Work:
    """The failure of a stage: raised again if Airflow is to retry or must not, else an outcome of the events."""
    context = get_current_context()
    ti = context["ti"]
    retried = isinstance(error, Transient) and ti.try_number <= ti.max_tries
    seconds = delay_seconds(seed_of(context), ti.try_number) if retried else 0
    bound.warning("stage failed", why=str(error), try_number=ti.try_number, again_in=seconds)
    _record_failure(parts, given.claimed, given.run_id, str(error), seconds)
    if retried or isinstance(error, Permanent):
        raise error
    failures = {e.mid: str(error) for e in given.claimed}
    return given.step((), events={"failed": len(failures)}, failures=failures)


def _record_failure(
    parts: Parts, claimed: Sequence[ClaimedEvent], run_id: str, why: str, seconds: float
) -> None:
    """Note the failure in the ledger, and make the claim outlive the delay of the retry (0: no retry)."""
    try:
        rows = parts.events.read([h.mid for h in claimed])
        unfinished = [h for h in claimed if h.mid in rows and not rows[h.mid].final]
        parts.events.fail([(h, why, rows[h.mid].attempts) for h in unfinished])
        for h in unfinished[:EVENTS_LOGGED]:
            log.warning(
                "transfer failed",
                mid=h.mid, from_user=h.transfer.from_user, to_user=h.transfer.to_user, run_id=run_id, why=why,
            )  # fmt: skip
        if seconds:
            lives_ms = int(seconds * 1000) + parts.settings.claim_seconds * 1000
            Claim(parts, unfinished, run_id).renew(lives_ms)
    except OwnershipError as e:
        log.warning("the failure cannot be noted in the ledger", why=str(e), run_id=run_id)
