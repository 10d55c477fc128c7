-- Times are milliseconds since 1970 in UTC; amounts are minor units with their ISO 4217 currency beside them.
-- No column holds a card number, audio or a voice in the clear: `sealed` columns are AES-256-GCM envelopes of the vault.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT;

CREATE TABLE customers (
    id              TEXT PRIMARY KEY,
    name            TEXT NOT NULL,
    customer_number TEXT UNIQUE, -- NULL once deleted
    status          TEXT NOT NULL CHECK (status IN ('active', 'blocked', 'deleted')),
    created_at      INTEGER NOT NULL
) STRICT;

-- A number may belong to several customers: then it nominates nobody.
CREATE TABLE customer_numbers (
    number      TEXT NOT NULL,
    customer_id TEXT NOT NULL REFERENCES customers (id),
    PRIMARY KEY (number, customer_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX customer_numbers_by_customer ON customer_numbers (customer_id);

CREATE TABLE cards (
    id           TEXT PRIMARY KEY,
    customer_id  TEXT NOT NULL REFERENCES customers (id),
    last4        TEXT NOT NULL CHECK (length(last4) = 4),
    length       INTEGER NOT NULL CHECK (length BETWEEN 13 AND 19),
    expiry_year  INTEGER,
    expiry_month INTEGER CHECK (expiry_month BETWEEN 1 AND 12),
    status       TEXT NOT NULL CHECK (status IN ('active', 'blocked', 'revoked')),
    sealed       BLOB NOT NULL, -- empty once erased
    digest       BLOB,          -- NULL once erased
    created_at   INTEGER NOT NULL,
    CHECK ((expiry_year IS NULL) = (expiry_month IS NULL)),
    CHECK (digest IS NOT NULL OR status = 'revoked')
) STRICT;
CREATE INDEX cards_by_customer ON cards (customer_id);
CREATE UNIQUE INDEX one_live_card_a_number ON cards (customer_id, digest) WHERE status <> 'revoked';

CREATE TABLE payees (
    id              TEXT PRIMARY KEY,
    name            TEXT NOT NULL,
    spoken_name_wav BLOB,
    created_at      INTEGER NOT NULL
) STRICT;

CREATE TABLE requests (
    id           TEXT PRIMARY KEY,
    customer_id  TEXT NOT NULL REFERENCES customers (id),
    payee_id     TEXT NOT NULL REFERENCES payees (id),
    amount_minor INTEGER NOT NULL CHECK (amount_minor > 0),
    currency     TEXT NOT NULL,
    due          TEXT,
    expires_at   INTEGER,
    status       TEXT NOT NULL CHECK (status IN ('open', 'paid', 'cancelled', 'expired')),
    held_by      TEXT, -- the intent that is paying it, or paid it
    created_at   INTEGER NOT NULL,
    CHECK (status <> 'paid' OR held_by IS NOT NULL)
) STRICT;
CREATE INDEX requests_by_customer ON requests (customer_id, status);

CREATE TABLE calls (
    id          TEXT PRIMARY KEY,
    customer_id TEXT REFERENCES customers (id),
    calling     TEXT,
    trunk       TEXT NOT NULL,
    started_at  INTEGER NOT NULL,
    ended_at    INTEGER,
    verdict     TEXT,
    record      TEXT NOT NULL
) STRICT;
CREATE INDEX calls_by_start ON calls (started_at);

CREATE TABLE intents (
    id           TEXT PRIMARY KEY,
    customer_id  TEXT NOT NULL REFERENCES customers (id),
    request_id   TEXT NOT NULL REFERENCES requests (id),
    payee_id     TEXT NOT NULL REFERENCES payees (id),
    card_id      TEXT NOT NULL REFERENCES cards (id),
    last4        TEXT NOT NULL,
    call_id      TEXT NOT NULL,
    amount_minor INTEGER NOT NULL CHECK (amount_minor > 0),
    currency     TEXT NOT NULL,
    status       TEXT NOT NULL CHECK (status IN ('pending', 'paid', 'failed')),
    evidence     TEXT NOT NULL,
    created_at   INTEGER NOT NULL
) STRICT;
-- A call submits a request once; a request has one live intent and one successful charge, whatever the program does.
CREATE UNIQUE INDEX one_intent_a_call_and_request ON intents (call_id, request_id);
CREATE UNIQUE INDEX one_live_intent_a_request ON intents (request_id) WHERE status = 'pending';
CREATE UNIQUE INDEX one_charge_a_request ON intents (request_id) WHERE status = 'paid';

CREATE TABLE attempts (
    id           TEXT PRIMARY KEY,
    intent_id    TEXT NOT NULL REFERENCES intents (id),
    amount_minor INTEGER NOT NULL CHECK (amount_minor > 0),
    currency     TEXT NOT NULL,
    state        TEXT NOT NULL CHECK (state IN
                 ('prepared', 'dispatched', 'needs_reconciliation', 'succeeded', 'declined', 'reversed')),
    detail       TEXT NOT NULL, -- the whole state as JSON
    version      INTEGER NOT NULL,
    created_at   INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX one_live_attempt_an_intent ON attempts (intent_id)
    WHERE state IN ('prepared', 'dispatched', 'needs_reconciliation');
CREATE UNIQUE INDEX one_success_an_intent ON attempts (intent_id) WHERE state = 'succeeded';
CREATE INDEX attempts_by_state ON attempts (state, created_at);
CREATE TRIGGER ended_attempts_stay BEFORE UPDATE ON attempts WHEN old.state IN ('succeeded', 'declined', 'reversed')
BEGIN SELECT RAISE(ABORT, 'an attempt that has ended does not change'); END;

CREATE TABLE transfers (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    id           TEXT NOT NULL UNIQUE,
    kind         TEXT NOT NULL CHECK (kind IN ('pending', 'post', 'void')),
    of_id        TEXT REFERENCES transfers (id),
    debit        TEXT NOT NULL,
    credit       TEXT NOT NULL,
    amount_minor INTEGER NOT NULL CHECK (amount_minor > 0),
    currency     TEXT NOT NULL,
    intent_id    TEXT NOT NULL REFERENCES intents (id),
    at           INTEGER NOT NULL,
    CHECK ((kind = 'pending') = (of_id IS NULL)),
    CHECK (debit <> credit)
) STRICT;
CREATE UNIQUE INDEX a_pending_transfer_ends_once ON transfers (of_id) WHERE of_id IS NOT NULL;
CREATE INDEX transfers_by_intent ON transfers (intent_id);
CREATE TRIGGER transfers_never_change BEFORE UPDATE ON transfers BEGIN SELECT RAISE(ABORT, 'the books are append-only'); END;
CREATE TRIGGER transfers_never_go BEFORE DELETE ON transfers BEGIN SELECT RAISE(ABORT, 'the books are append-only'); END;

CREATE TABLE receipts (
    id        TEXT PRIMARY KEY,
    reference TEXT NOT NULL UNIQUE CHECK (length(reference) = 10),
    intent_id TEXT NOT NULL UNIQUE REFERENCES intents (id),
    body      TEXT NOT NULL,
    at        INTEGER NOT NULL
) STRICT;
CREATE TRIGGER receipts_never_change BEFORE UPDATE ON receipts BEGIN SELECT RAISE(ABORT, 'receipts are append-only'); END;
CREATE TRIGGER receipts_never_go BEFORE DELETE ON receipts BEGIN SELECT RAISE(ABORT, 'receipts are append-only'); END;

CREATE TABLE invites (
    id          TEXT PRIMARY KEY,
    customer_id TEXT NOT NULL REFERENCES customers (id),
    code_digest BLOB NOT NULL,
    expires_at  INTEGER NOT NULL,
    wrong_tries INTEGER NOT NULL DEFAULT 0,
    used_at     INTEGER,
    ended_at    INTEGER -- a newer invitation took its place
) STRICT;
CREATE UNIQUE INDEX one_open_invite_a_customer ON invites (customer_id) WHERE used_at IS NULL AND ended_at IS NULL;
CREATE UNIQUE INDEX one_open_invite_a_code ON invites (code_digest) WHERE used_at IS NULL AND ended_at IS NULL;

CREATE TABLE templates (
    customer_id TEXT PRIMARY KEY REFERENCES customers (id),
    model       TEXT NOT NULL,
    sealed      BLOB NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT;

CREATE TABLE consents (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    customer_id  TEXT NOT NULL REFERENCES customers (id),
    text_version TEXT NOT NULL,
    given_by     TEXT NOT NULL,
    given_at     INTEGER NOT NULL,
    call_id      TEXT,
    invite_id    TEXT
) STRICT;

CREATE TABLE factor_failures (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    factor      TEXT NOT NULL,
    customer_id TEXT REFERENCES customers (id),
    calling     TEXT,
    trunk       TEXT NOT NULL,
    attested    INTEGER NOT NULL CHECK (attested IN (0, 1)),
    call_id     TEXT NOT NULL,
    at          INTEGER NOT NULL
) STRICT;
CREATE INDEX failures_by_customer ON factor_failures (customer_id, at);
CREATE INDEX failures_by_calling ON factor_failures (calling, at);
CREATE INDEX failures_by_trunk ON factor_failures (trunk, at);

CREATE TABLE audit (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    id      TEXT NOT NULL UNIQUE,
    at      INTEGER NOT NULL,
    actor   TEXT NOT NULL,
    action  TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail  TEXT NOT NULL
) STRICT;
CREATE TRIGGER audit_never_changes BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END;
CREATE TRIGGER audit_never_goes BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END;

CREATE TABLE outbox (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    id           TEXT NOT NULL UNIQUE,
    at           INTEGER NOT NULL,
    topic        TEXT NOT NULL,
    payload      TEXT NOT NULL,
    delivered_at INTEGER
) STRICT;
CREATE INDEX outbox_waiting ON outbox (seq) WHERE delivered_at IS NULL;
