-- Where tenants are told of what happened, and what they were told.

CREATE TABLE endpoints (
    id         word PRIMARY KEY,
    tenant     word NOT NULL,
    url        word NOT NULL,
    topics     word NOT NULL, -- JSON: a list of topics, or of their beginnings with `*`
    secrets    word NOT NULL, -- JSON: sealed secrets with the time from which each signs no more
    disabled   boolean NOT NULL DEFAULT false,
    version    bigint NOT NULL,
    created_at bigint NOT NULL
);
CREATE INDEX endpoints_by_tenant ON endpoints (tenant, id);

-- One row of the outbox for one endpoint. What has the same subject is delivered in the order of the outbox.
CREATE TABLE deliveries (
    endpoint_id word NOT NULL REFERENCES endpoints (id),
    outbox_id   word NOT NULL REFERENCES outbox (id),
    position    bigint NOT NULL, -- of the outbox row
    subject     word NOT NULL,
    state       word NOT NULL CHECK (state IN ('waiting', 'delivered', 'dead')),
    tries       bigint NOT NULL DEFAULT 0,
    next_at     bigint NOT NULL,
    answer      word, -- of the last try: a status, or what went wrong
    ended_at    bigint,
    PRIMARY KEY (endpoint_id, outbox_id)
);
CREATE INDEX deliveries_due ON deliveries (next_at) WHERE state = 'waiting';
CREATE INDEX deliveries_in_order ON deliveries (endpoint_id, subject, position) WHERE state = 'waiting';
CREATE INDEX deliveries_by_position ON deliveries (endpoint_id, position);
CREATE INDEX deliveries_ended ON deliveries (ended_at) WHERE ended_at IS NOT NULL;
