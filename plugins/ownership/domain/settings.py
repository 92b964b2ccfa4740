"""The job's settings: one typed, immutable object, read at run time.

They come from the Airflow Variable `VARIABLE`, a JSON object with the names below (in an
environment: ``AIRFLOW_VAR_USER_OWNERSHIP_TRANSFER``). Hosts and secrets are in Connections.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ownership.domain.clock import MINUTE_MS
from ownership.domain.errors import SettingsError
from ownership.domain.event import explain, listed
from ownership.domain.options import Scopes
from ownership.domain.organisations import OrganisationRights

VARIABLE = "user_ownership_transfer"

_HOST = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")


def _topic(name: str) -> str:
    if name in (".", ".."):
        raise ValueError("is no name that Kafka takes")
    return name


def _url(text: str) -> str:
    """A URL that can be connected to: a host, and a port if there is one."""
    if not (text.isascii() and text.isprintable()):
        raise ValueError(
            "has letters that a URL has not: write the host in punycode, the path percent-encoded"
        )
    try:
        address = urlsplit(text)
        port, host = address.port, address.hostname or ""
    except ValueError:  # a port that is no number, half an IPv6 address
        raise ValueError("has a host or port that is none") from None
    if "@" in address.netloc:
        raise ValueError("has a login in it: that belongs into the Connection")
    if not (":" in host or (len(host) <= 253 and _HOST.fullmatch(host))) or port == 0:
        raise ValueError("has a host or port that is none")
    return text


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (OSError, ValueError, LookupError):  # unknown, a folder of zones, a path
        raise ValueError("is no time zone: use a name such as Asia/Kolkata or UTC") from None
    return name


CqlName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z][a-zA-Z0-9_]{0,47}$")]
TopicName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9._-]{1,249}$"), AfterValidator(_topic)]
IndexName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,254}$")]
ApiPath = Annotated[str, StringConstraints(pattern=r"^/[A-Za-z0-9._~/-]*$")]
TimeZone = Annotated[str, StringConstraints(max_length=100), AfterValidator(_time_zone)]
BaseUrl = Annotated[
    str,
    StringConstraints(pattern=r"^https?://[^\s/?#]+(/[^\s?#]*)?$", max_length=2000),
    AfterValidator(_url),
]


class Settings(BaseModel):
    """All settings. The aliases are the names that operators write."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    env: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")] = Field(
        "dev", description="Name of the installation; prefix of topics and consumer group."
    )
    input_topic: TopicName = Field(
        "{env}.user.ownership.transfer", alias="kafka.input.topic", description="Topic of the events."
    )
    failed_topic: TopicName = Field(
        "{env}.user.ownership.transfer.failed",
        alias="kafka.failed.topic",
        description="Dead-letter topic: a copy of every rejected message.",
    )
    group_id: TopicName = Field(
        "{env}-user-ownership-transfer-group",
        alias="kafka.groupId",
        description="Consumer group whose offsets follow the ledger's, for lag monitors.",
    )
    keyspace: CqlName = Field(
        "sunbird_courses", alias="lms-cassandra.keyspace", description="Keyspace of the platform's courses."
    )
    course_batch_table: CqlName = Field(
        "course_batch", alias="lms-cassandra.course_batch.table", description="Table of course batches."
    )
    course_batch_index: IndexName = Field(
        "course-batch",
        alias="es.course_batch.index",
        description="Search index of course batches, or an alias of one.",
    )
    time_zone: TimeZone = Field(
        "Asia/Kolkata",
        alias="platform.timezone",
        description="The platform's time zone (the LMS's `sunbird_timezone`), in which documents that are created "
        "have their dates.",
    )
    batch_write_size: int = Field(
        10,
        ge=1,
        le=100,
        alias="threshold.batch.write.size",
        description="Most rows in one conditional batch on `course_batch`.",
    )
    lms_base_path: BaseUrl | None = Field(
        None,
        alias="service.lms.basePath",
        description="URL of the LMS; by default from Connection `lms_default`.",
    )
    userorg_base_path: BaseUrl | None = Field(
        None,
        alias="service.userorg.basePath",
        description="URL of User-Org; by default from Connection `userorg_default`.",
    )
    user_read_api: ApiPath = Field("/private/user/v1/read/", description="User-Org's path; the id follows.")
    batch_search_api: ApiPath = Field(
        "/v1/course/batch/search", description="LMS's path of the batch search."
    )
    max_mapped: int = Field(
        0,
        ge=0,
        le=1024,
        description="A run of at most so many lanes has an instance of each stage per lane; more lanes are packed. "
        "0 follows the executor: half of `[core] parallelism`, or `user.ownership.transfer.parallelism` if that is "
        "set. 1 always packs; 1024, the most that Airflow maps, never does.",
    )
    parallelism: int = Field(
        0,
        ge=0,
        le=256,
        alias="user.ownership.transfer.parallelism",
        description="Instances of each stage, at most, that more lanes are packed into; few events have fewer. "
        "0 follows the executor: a quarter of `[core] parallelism`; 1 is what the old job did. Order does not depend "
        "on it.",
    )
    max_events: int = Field(
        5000, ge=1, le=20_000, description="Most events that one run claims; the rest waits for the next."
    )
    transfer_scope: Scopes = Field(
        "user",
        alias="transfer.scope",
        description="`user`: an event moves everything of its old user, as the old job did. `asset`: an event that "
        "names a course batch moves that batch only, one that names another kind of asset is skipped, and one that "
        "names nothing moves everything. It holds for events that are accepted from then on.",
    )
    deleted_givers: Literal["transfer", "skip"] = Field(
        "transfer",
        alias="transfer.deleted.givers",
        description="An old user who is deleted or blocked in User-Org: `transfer` moves the batches that are for the "
        "event's organisation or name none, `skip` moves nothing.",
    )
    claim_seconds: int = Field(
        120,
        ge=5,
        le=3600,
        alias="claim.seconds",
        description="How long a claim outlives the last sign of its run before others take over.",
    )
    grace_ms: int = Field(
        1000,
        ge=0,
        le=60_000,
        alias="grace.ms",
        description="Age of an event before it is claimed: covers producers that push out of order.",
    )
    resignal_seconds: int = Field(
        30,
        ge=1,
        le=3600,
        alias="watcher.resignal.seconds",
        description="The watcher repeats its signal this often while work stands still.",
    )
    deadline_minutes: int = Field(
        30,
        ge=1,
        le=7 * 24 * 60,
        alias="deadline.minutes",
        description="An event that is not proven by then is overdue: it is told, and counted for an alert.",
    )
    approval_batches: int = Field(
        0,
        ge=0,
        le=1_000_000,
        alias="approval.batches",
        description="A transfer of more batches than this waits for an approval; 0 asks for none.",
    )
    approval_hours: int = Field(
        168,
        ge=1,
        le=24 * 365,
        alias="approval.timeout.hours",
        description="How long a transfer waits for its approval before it is declined.",
    )
    notify_email_to: Annotated[str, StringConstraints(max_length=2000, pattern=r"^[^\r\n]*$")] = Field(
        "",
        alias="notify.email.to",
        description="Addresses, separated by commas, that hear of failures, conflicts and wanted "
        "approvals; through Connection `smtp_default`.",
    )
    notify_webhook: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{0,200}$")] = Field(
        "",
        alias="notify.webhook.connection",
        description="An HTTP Connection whose URL gets the same as JSON.",
    )
    organisation_rights: OrganisationRights = Field(
        (),
        alias="page.organisations",
        description="Which organisations' transfers a role or team of Airflow may see and act on. Without any, each "
        "user sees all; with some, a user without a right sees none.",
    )
    reconcile_rows_per_second: int = Field(
        2000,
        ge=0,
        le=1_000_000,
        alias="reconcile.rows_per_second",
        description="Most rows, and documents, that a reconciliation reads a second in all; 0 is no limit.",
    )
    reconcile_ranges: int = Field(
        64,
        ge=1,
        le=4096,
        alias="reconcile.ranges",
        description="Ranges of the token ring; a reconciliation goes on at the first that is not done.",
    )
    reconcile_slices: int = Field(
        2,
        ge=1,
        le=64,
        alias="reconcile.slices",
        description="Mapped instances of a reconciliation; each reads the whole index once.",
    )
    reconcile_days: int = Field(
        8,
        ge=0,
        le=400,
        alias="reconcile.days",
        description="How far back a reconciliation looks at the ledger's transfers.",
    )
    reconcile_alert: int = Field(
        0,
        ge=0,
        le=1_000_000_000,
        alias="reconcile.alert.differences",
        description="A reconciliation is red if it leaves more differences than this.",
    )
    retention_days: int = Field(
        400,
        ge=1,
        le=3650,
        alias="ledger.retention.days",
        description="Life of the ledger's rows, by whole months, and how far back a transfer can be undone.",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """Defaults that begin with the installation's name."""
        if not isinstance(values, dict):
            return values
        prefixed = (cls.model_fields[name] for name in ("input_topic", "failed_topic", "group_id"))
        return {f.alias: f.default.format(env=values.get("env", "dev")) for f in prefixed} | values

    @field_validator("*", mode="before")
    @classmethod
    def _no_flag(cls, value: Any) -> Any:
        if isinstance(value, bool):  # which would be read as 1 or 0
            raise ValueError("is true or false, which no setting is")  # noqa: TRY004  # the kind that pydantic collects
        return value

    @field_validator("failed_topic")
    @classmethod
    def _not_the_input(cls, name: str, info: ValidationInfo) -> str:
        if name == info.data.get("input_topic"):
            raise ValueError(
                "is the topic of the events: a run would read each dead letter, and reject it again"
            )
        return name

    @property
    def deadline_ms(self) -> int:
        """`deadline.minutes` in milliseconds."""
        return self.deadline_minutes * MINUTE_MS

    def for_slots(self, slots: int) -> Self:
        """The same with what follows the executor's `slots` (`[core] parallelism`) filled in.

        Half the slots at most, because other runs and DAGs need slots, too; a quarter for a packed burst, whose
        instances are in each other's way above that (docs/performance.md).
        """
        return self.model_copy(
            update={
                "max_mapped": self.max_mapped or self.parallelism or max(1, slots // 2),
                "parallelism": self.parallelism or max(1, slots // 4),
            }
        )

    @classmethod
    def parse(cls, text: str | None) -> Self:
        """Settings from the Variable's text; None or empty means all defaults.

        :raises SettingsError: naming each unknown or invalid setting.
        """
        where = f"Set Airflow Variable '{VARIABLE}' (a JSON object) under Admin → Variables."
        try:
            values = json.loads(text) if text and text.strip() else {}
        except (ValueError, RecursionError) as e:
            raise SettingsError(f"Variable '{VARIABLE}' is not JSON: {e}. {where}") from None
        if not isinstance(values, dict):
            raise SettingsError(f"Variable '{VARIABLE}' is not a JSON object. {where}")
        known = {f.alias or name for name, f in cls.model_fields.items()}
        unknown = set(values) - known
        if unknown:
            raise SettingsError(
                f"Unknown setting{'s' if len(unknown) > 1 else ''} {listed(unknown)} in Variable "
                f"'{VARIABLE}'; known are {', '.join(sorted(known))}."
            )
        try:
            return cls.model_validate(values)
        except ValidationError as e:
            raise SettingsError(f"Wrong setting: {explain(e)}. {where}") from None
