-- Where tenants are told of what happened, and what they were told.

CREATE TABLE endpoints (
    id         TEXT PRIMARY KEY,
    tenant     TEXT NOT NULL,
    url        TEXT NOT NULL,
    topics     TEXT NOT NULL, -- JSON: a list of topics, or of their beginnings with `*`
    secrets    TEXT NOT NULL, -- JSON: sealed secrets with the time from which each signs no more
    disabled   INTEGER NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1)),
    version    INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE INDEX endpoints_by_tenant ON endpoints (tenant, id);

-- One row of the outbox for one endpoint. What has the same subject is delivered in the order of the outbox.
CREATE TABLE deliveries (
    endpoint_id TEXT NOT NULL REFERENCES endpoints (id),
    outbox_id   TEXT NOT NULL REFERENCES outbox (id),
    position    INTEGER NOT NULL, -- of the outbox row
    subject     TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('waiting', 'delivered', 'dead')),
    tries       INTEGER NOT NULL DEFAULT 0,
    next_at     INTEGER NOT NULL,
    answer      TEXT, -- of the last try: a status, or what went wrong
    ended_at    INTEGER,
    PRIMARY KEY (endpoint_id, outbox_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX deliveries_due ON deliveries (next_at) WHERE state = 'waiting';
CREATE INDEX deliveries_in_order ON deliveries (endpoint_id, subject, position) WHERE state = 'waiting';
CREATE INDEX deliveries_by_position ON deliveries (endpoint_id, position);
CREATE INDEX deliveries_ended ON deliveries (ended_at) WHERE ended_at IS NOT NULL;
