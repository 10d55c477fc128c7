-- Calls that we owe: to whoever has to agree to a payment, and to its payer once it is settled.

CREATE TABLE callbacks (
    id           TEXT PRIMARY KEY,
    approval_id  TEXT NOT NULL,
    customer_id  TEXT NOT NULL REFERENCES customers (id),
    purpose      TEXT NOT NULL CHECK (purpose IN ('decide', 'tell')),
    state        TEXT NOT NULL CHECK (state IN ('waiting', 'over', 'given_up')),
    tries        INTEGER NOT NULL CHECK (tries >= 0),
    due_at       INTEGER, -- the next call; while somebody is at it, the end of the lease
    lease_owner  TEXT,
    expires_at   INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    last_outcome TEXT,
    last_call    TEXT,
    CHECK ((state = 'waiting') = (due_at IS NOT NULL)),
    CHECK (lease_owner IS NULL OR state = 'waiting')
) STRICT;
-- Nobody is called twice about the same.
CREATE UNIQUE INDEX callbacks_once ON callbacks (approval_id, customer_id, purpose);
CREATE INDEX callbacks_due ON callbacks (due_at) WHERE state = 'waiting';
CREATE INDEX callbacks_by_time ON callbacks (created_at, id);
