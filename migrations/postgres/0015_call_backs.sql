-- Calls that we owe: to whoever has to agree to a payment, and to its payer once it is settled.

CREATE TABLE callbacks (
    id           word PRIMARY KEY,
    approval_id  word NOT NULL,
    customer_id  word NOT NULL REFERENCES customers (id),
    purpose      word NOT NULL CHECK (purpose IN ('decide', 'tell')),
    state        word NOT NULL CHECK (state IN ('waiting', 'over', 'given_up')),
    tries        bigint NOT NULL CHECK (tries >= 0),
    due_at       bigint, -- the next call; while somebody is at it, the end of the lease
    lease_owner  word,
    expires_at   bigint NOT NULL,
    created_at   bigint NOT NULL,
    last_outcome word,
    last_call    word,
    CHECK ((state = 'waiting') = (due_at IS NOT NULL)),
    CHECK (lease_owner IS NULL OR state = 'waiting')
);
-- Nobody is called twice about the same.
CREATE UNIQUE INDEX callbacks_once ON callbacks (approval_id, customer_id, purpose);
CREATE INDEX callbacks_due ON callbacks (due_at) WHERE state = 'waiting';
CREATE INDEX callbacks_by_time ON callbacks (created_at, id);
