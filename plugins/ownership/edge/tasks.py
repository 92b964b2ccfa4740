"""The stages as Airflow runs them: parts opened, retries, last tries, logs and metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from airflow.sdk import AssetAlias, get_current_context
from airflow.sdk.exceptions import AirflowFailException, DownstreamTasksSkipped

from ownership.domain import plan_report
from ownership.domain.conf import Approve, Decline
from ownership.domain.contracts import Pulled, Slice, Summary, Work
from ownership.domain.errors import OwnershipError, Permanent, TakenOver, Transient
from ownership.domain.queue import ClaimedEvent
from ownership.domain.states import EventState
from ownership.edge import assets, metrics
from ownership.edge.approvals import ALIAS, APPROVE, DECLINE, WANTED, asks
from ownership.edge.hooks import max_map_length, opened_parts
from ownership.edge.interruption import Interrupted, interruptible
from ownership.edge.operators import UNNAMED
from ownership.edge.retries import delay_seconds, seed_of
from ownership.ledger.events import EventRow
from ownership.stages import operate
from ownership.stages import settle as settling
from ownership.stages.claim import Claim
from ownership.stages.finished import extras
from ownership.stages.lookup import lookup_users
from ownership.stages.parts import Parts
from ownership.stages.reindex import reindex_course_batches
from ownership.stages.update import update_course_batches

log = structlog.get_logger(__name__)

EVENTS_LOGGED = 50
"""Failed events of a slice that get a line each; all are in the ledger."""


def lookup(work: Mapping[str, Any]) -> dict[str, Any]:
    """`lookup_users` of one slice."""
    ti = get_current_context()["ti"]
    last = ti.try_number > ti.max_tries
    given = Slice.model_validate(work)

    def stage(parts: Parts) -> Work:
        done = lookup_users(parts, given, last_try=last)
        metrics.users_read(parts.users.answered)
        return done

    return _run("lookup_users", stage, Work(label=given.label, run_id=given.run_id), given.events)


def update(work: Mapping[str, Any]) -> dict[str, Any]:
    """`update_course_batches` of one slice."""
    given = Work.model_validate(work)
    return _run(
        "update_course_batches", lambda parts: update_course_batches(parts, given), given, _claimed(given)
    )


def reindex(work: Mapping[str, Any]) -> dict[str, Any]:
    """`reindex_course_batches` of one slice."""
    given = Work.model_validate(work)
    return _run(
        "reindex_course_batches", lambda parts: reindex_course_batches(parts, given), given, _claimed(given)
    )


def settle(slices: Sequence[Mapping[str, Any]] | None, pulled: Mapping[str, Any] | None) -> dict[str, Any]:
    """Release what is left, count, and skip the verdict where nothing failed.

    It never fails the run itself: it must have run to its end for the claims to be free.
    """
    ti = get_current_context()["ti"]
    if slices is None:
        return {"failures": {"pull_transfer_events": "did not end: its log says why"}}
    found = Pulled.model_validate({**(pulled or {}), "slices": slices})
    with opened_parts() as parts:
        settled = settling.settle(parts, found.slices, found.waits, found.notes)
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
    """The questions of this run: one for each transfer that waits for an approval and that no other run asks about."""
    ti = get_current_context()["ti"]
    with opened_parts() as parts:
        questions = operate.questions(parts, run_id=ti.run_id, asks=asks(ti), limit=max_map_length())
    log.info("approvals wanted", mids=[q["mid"] for q in questions])
    return questions


def decide(question: Mapping[str, Any], answer: Mapping[str, Any]) -> str:
    """Write an answer from the UI into the ledger. Returns what became of the transfer.

    :raises ConfError: if the transfer waits with another plan by now.
    """
    mid, by, reason = question["mid"], answer["by"] or UNNAMED, answer["reason"] or "no reason given"
    run_id = get_current_context()["ti"].run_id
    with opened_parts() as parts:
        if answer["chosen"] == APPROVE:
            approval = Approve(mid=mid, digest=question["digest"], by=by)
            outcome = operate.approve(parts, approval, run_id=run_id, by=by)
        elif answer["chosen"] == DECLINE:
            refusal = Decline(mid=mid, reason=reason, by=by)
            outcome = operate.decline(parts, refusal, run_id=run_id, by=by)
        else:
            outcome = "was not answered in time; the next run of user_ownership_transfer declines it"
    log.warning("approval answered", mid=mid, outcome=outcome)
    return outcome


def verdict(summary: Mapping[str, Any]) -> None:
    """Fail the run: events are still open, or it did not get that far.

    :raises AirflowFailException: always.
    """
    ended = Summary.model_validate(summary)
    reasons = "; ".join(f"{mid}: {why}" for mid, why in list(ended.failures.items())[:5])
    what = f"{ended.failed} events failed and will be tried again. " if ended.failed else ""
    raise AirflowFailException(what + reasons)


def _ask_for_approval(summary: Summary) -> None:
    """Start the approval DAG; the event's content is for people, the DAG asks the ledger."""
    waiting: list[Any] = [p.mid for p in summary.plans if p.state == EventState.AWAITING_APPROVAL]
    get_current_context()["outlet_events"][AssetAlias(ALIAS)].add(WANTED, extra={"mids": waiting})


def _claimed(work: Work) -> list[ClaimedEvent]:
    return [event for phase in work.phases for event in phase.events]


def _announce_finished(run_id: str, finished: Sequence[EventRow]) -> None:
    """Update the assets of table and index, for DAGs that are scheduled on them."""
    events = get_current_context()["outlet_events"][AssetAlias(assets.FINISHED)]
    for extra in extras(run_id, finished):
        for asset in (assets.TABLE, assets.INDEX):
            events.add(asset, extra=extra)


def _run(
    name: str, stage: Callable[[Parts], Work], given: Work, claimed: Sequence[ClaimedEvent]
) -> dict[str, Any]:
    """Run a stage; hand its failure on as an outcome at the last try, else hold the claim for a retry.

    :raises Stopped: if the task is told to end; any run may go on with its events at once.
    """
    if not claimed:
        return given.step((), events={}).model_dump(mode="json")
    ti = get_current_context()["ti"]
    bound = log.bind(stage=name, run_id=given.run_id, slice=given.label)
    with interruptible(), opened_parts() as parts:
        parts.cql.connect_ahead()
        try:
            done = stage(parts)
        except Interrupted:
            bound.warning("stage interrupted", try_number=ti.try_number)
            parts.queue.release(claimed, next_try_ms=0)
            raise
        except TakenOver as e:
            bound.warning("taken over", why=str(e))
            done = given.step((), events={"taken_over": len(claimed)})
        except OwnershipError as e:
            done = _failed(parts, given, claimed, e, bound)
        else:
            bound.info(
                "stage done", **done.model_dump(mode="json", include={"events", "batches", "failures"})
            )
    return done.model_dump(mode="json")


def _failed(
    parts: Parts, given: Work, claimed: Sequence[ClaimedEvent], error: OwnershipError, bound: Any
) -> Work:
    """The failure of a stage: raised again if Airflow is to retry or must not, else an outcome of the events."""
    context = get_current_context()
    ti = context["ti"]
    retried = isinstance(error, Transient) and ti.try_number <= ti.max_tries
    seconds = delay_seconds(seed_of(context), ti.try_number) if retried else 0
    bound.warning("stage failed", why=str(error), try_number=ti.try_number, again_in=seconds)
    _record_failure(parts, claimed, given.run_id, str(error), seconds)
    if retried or isinstance(error, Permanent):
        raise error
    return given.step((), events={"failed": len(claimed)}, failures={h.mid: str(error) for h in claimed})


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
