"""The ledger: events, queue, audit trail, rejected messages, consumed offsets, reconciliations."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None

_OPEN = "'received', 'planned', 'awaiting_approval', 'applied', 'failed'"
_FINAL = "'completed', 'skipped', 'abandoned', 'rehearsed', 'declined'"
_PLANNED = "'moved', 'already', 'changed_elsewhere', 'gone', 'not_live'"
_CHANGED = "'applied', 'refused', 'superseded', 'in_doubt', 'late'"
_OWNERS = """
    before_created_by text,
    before_mentors text[],
    after_created_by text,
    after_mentors text[]"""

STATEMENTS = (
    "CREATE SEQUENCE event_number",
    # The month first: all rows of an event are in the partition of the month in which it arrived.
    """
    CREATE FUNCTION next_event_id() RETURNS bigint LANGUAGE sql VOLATILE AS $$
        SELECT ((extract(year FROM now() AT TIME ZONE 'utc') * 12
                 + extract(month FROM now() AT TIME ZONE 'utc') - 1)::bigint << 40)
               + nextval('event_number')
    $$
    """,
    f"""
    CREATE TABLE event (
        id bigint PRIMARY KEY DEFAULT next_event_id(),
        mid text NOT NULL UNIQUE,
        order_ms bigint NOT NULL,
        kafka_partition integer NOT NULL,
        kafka_offset bigint NOT NULL,
        from_user text NOT NULL,
        to_user text NOT NULL,
        source_user text NOT NULL,
        target_user text NOT NULL,
        organisation_id text,
        origin text NOT NULL CHECK (origin IN ('kafka', 'manual', 'follow-up')),
        topic text NOT NULL,
        kafka_ms bigint NOT NULL,
        ets bigint,
        options jsonb,
        follows text[] GENERATED ALWAYS AS
            (array_remove(ARRAY[options ->> 'undo_of', options ->> 'plan_of'], NULL)) STORED,
        requested_by text,
        request_reason text,
        request_id text,
        state text NOT NULL CHECK (state IN ({_OPEN}, {_FINAL})),
        verdict text CHECK (verdict IN ('valid', 'invalid', 'giver_deleted')),
        verdict_reason text,
        reason text,
        waits_for text,
        fencing_token bigint NOT NULL DEFAULT 0 CHECK (fencing_token >= 0),
        run_id text,
        attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
        planned_with text[] NOT NULL DEFAULT '{{}}',
        counts jsonb NOT NULL DEFAULT '{{}}',
        late boolean NOT NULL DEFAULT false,
        digest text,
        report text,
        approved_digest text,
        approved_by text,
        awaits_until timestamptz,
        asked_run text,
        next_conf text,
        received_at timestamptz NOT NULL DEFAULT now(),
        planned_at timestamptz,
        applied_at timestamptz,
        completed_at timestamptz,
        ended_at timestamptz,
        reproved_at timestamptz,
        CHECK ((state IN ({_FINAL})) = (ended_at IS NOT NULL)),
        CHECK ((state = 'completed') = (completed_at IS NOT NULL)),
        CHECK (reproved_at IS NULL OR state = 'completed')
    ) WITH (fillfactor = 80)
    """,
    "CREATE INDEX event_order ON event (order_ms, kafka_partition, kafka_offset, mid)",
    "CREATE INDEX event_source_user ON event (source_user, order_ms, kafka_partition, kafka_offset, mid)",
    "CREATE INDEX event_target_user ON event (target_user, order_ms, kafka_partition, kafka_offset, mid)",
    "CREATE INDEX event_state ON event (state, order_ms, kafka_partition, kafka_offset, mid)",
    "CREATE INDEX event_organisation ON event (organisation_id, state, order_ms, kafka_partition, kafka_offset, mid)",
    "CREATE INDEX event_kafka_ms ON event (kafka_ms, id)",
    "CREATE INDEX event_received ON event (received_at)",
    "CREATE INDEX event_request ON event (request_id, id) WHERE request_id IS NOT NULL",
    "CREATE INDEX event_follows ON event USING gin (follows) WHERE options IS NOT NULL",
    """
    CREATE TABLE payload (
        event_id bigint PRIMARY KEY REFERENCES event (id),
        body bytea NOT NULL
    ) PARTITION BY RANGE (event_id)
    """,
    """
    CREATE TABLE event_run (
        run_id text NOT NULL,
        event_id bigint NOT NULL REFERENCES event (id),
        PRIMARY KEY (run_id, event_id)
    )
    """,
    "CREATE INDEX event_run_event ON event_run (event_id)",
    # Many updates and deletes of few rows: room for updates in place, and vacuumed early.
    """
    CREATE TABLE queue (
        event_id bigint PRIMARY KEY REFERENCES event (id),
        claim_token bigint NOT NULL DEFAULT 0 CHECK (claim_token >= 0),
        fencing_token bigint NOT NULL DEFAULT 0 CHECK (fencing_token >= claim_token),
        holder text,
        lease_expires_at timestamptz,
        next_try_at timestamptz,
        awaits text CHECK (awaits IN ('approval')),
        accepted_at timestamptz NOT NULL,
        CHECK ((holder IS NULL) = (lease_expires_at IS NULL)),
        CHECK (awaits IS NULL OR next_try_at IS NOT NULL)
    ) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000)
    """,
    """
    CREATE TABLE queue_head (
        id smallint PRIMARY KEY DEFAULT 1 CHECK (id = 1),
        fencing_token bigint NOT NULL CHECK (fencing_token >= 0)
    ) WITH (fillfactor = 10)
    """,
    "INSERT INTO queue_head (fencing_token) VALUES (0)",
    f"""
    CREATE TABLE plan (
        event_id bigint NOT NULL REFERENCES event (id),
        course_id text NOT NULL,
        batch_id text NOT NULL,
        role text,
        status integer,{_OWNERS},
        outcome text CHECK (outcome IN ({_PLANNED})),
        proven_at timestamptz,
        PRIMARY KEY (event_id, course_id, batch_id)
    ) PARTITION BY RANGE (event_id)
    """,
    "CREATE INDEX plan_course ON plan (course_id, event_id)",
    "CREATE INDEX plan_batch ON plan (batch_id, event_id)",
    f"""
    CREATE TABLE change (
        event_id bigint NOT NULL REFERENCES event (id),
        course_id text NOT NULL,
        batch_id text NOT NULL,
        image uuid NOT NULL,
        hop smallint NOT NULL CHECK (hop >= 0),
        hops smallint NOT NULL CHECK (hops > hop),
        fencing_token bigint NOT NULL CHECK (fencing_token > 0),
        role text NOT NULL,
        status integer,{_OWNERS},
        outcome text CHECK (outcome IN ({_CHANGED})),
        recorded_at timestamptz NOT NULL DEFAULT now(),
        applied_at timestamptz,
        PRIMARY KEY (event_id, course_id, batch_id, image)
    ) PARTITION BY RANGE (event_id)
    """,
    "CREATE INDEX change_course ON change (course_id, event_id)",
    "CREATE INDEX change_batch ON change (batch_id, event_id)",
    "CREATE INDEX change_image ON change (image) WHERE hops > 1",
    """
    CREATE TABLE rejected_message (
        mid text PRIMARY KEY,
        origin text NOT NULL CHECK (origin IN ('kafka', 'manual', 'follow-up')),
        topic text NOT NULL,
        kafka_partition integer NOT NULL,
        kafka_offset bigint NOT NULL,
        kafka_ms bigint NOT NULL,
        message_mid text,
        request_id text,
        body bytea NOT NULL,
        reason text NOT NULL,
        next_conf text,
        received_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    "CREATE INDEX rejected_message_order ON rejected_message (kafka_ms, kafka_partition, kafka_offset, mid)",
    "CREATE INDEX rejected_message_request ON rejected_message (request_id) WHERE request_id IS NOT NULL",
    """
    CREATE TABLE consumed_offset (
        topic text NOT NULL,
        kafka_partition integer NOT NULL,
        next_offset bigint NOT NULL CHECK (next_offset >= 0),
        last_offset bigint CHECK (last_offset < next_offset),
        last_digest text,
        updated_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (topic, kafka_partition),
        CHECK ((last_offset IS NULL) = (last_digest IS NULL))
    )
    """,
    """
    CREATE TABLE reconciliation (
        run_id text PRIMARY KEY,
        cuts jsonb NOT NULL,
        began_at timestamptz NOT NULL,
        report jsonb
    )
    """,
    "CREATE INDEX reconciliation_began ON reconciliation (began_at)",
    """
    CREATE TABLE reconciliation_part (
        run_id text NOT NULL REFERENCES reconciliation (run_id),
        part text NOT NULL,
        counts jsonb NOT NULL,
        samples jsonb NOT NULL,
        began_at timestamptz NOT NULL,
        ended_at timestamptz NOT NULL,
        PRIMARY KEY (run_id, part)
    )
    """,
)


def upgrade() -> None:
    """Create everything; the partitions come with their months."""
    for statement in STATEMENTS:
        op.execute(statement)
