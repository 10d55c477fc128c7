-- Times are milliseconds since 1970 in UTC; amounts are minor units with their ISO 4217 currency beside them.
-- No column holds a card number, audio or a voice in the clear: `sealed` columns are AES-256-GCM envelopes of the vault.

-- A text that compares byte by byte, whatever the server's locale: a page of identifiers must go on where Rust says the last one ended.
-- JSON is kept so too, byte by byte as it was written: digests are taken over it.
CREATE DOMAIN word AS text COLLATE "C";

-- What an append-only table says to whoever would change it. SQLSTATE class VP is ours.
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%', TG_ARGV[0] USING ERRCODE = 'VP001';
END
$$;

CREATE TABLE meta (
    key   word PRIMARY KEY,
    value bytea NOT NULL
);

CREATE TABLE customers (
    id              word PRIMARY KEY,
    name            word NOT NULL,
    customer_number word UNIQUE, -- NULL once deleted
    status          word NOT NULL CHECK (status IN ('active', 'blocked', 'deleted')),
    created_at      bigint NOT NULL
);

-- A number may belong to several customers: then it nominates nobody.
CREATE TABLE customer_numbers (
    number      word NOT NULL,
    customer_id word NOT NULL REFERENCES customers (id),
    PRIMARY KEY (number, customer_id)
);
CREATE INDEX customer_numbers_by_customer ON customer_numbers (customer_id);

CREATE TABLE cards (
    id           word PRIMARY KEY,
    customer_id  word NOT NULL REFERENCES customers (id),
    last4        word NOT NULL CHECK (length(last4) = 4),
    length       bigint NOT NULL CHECK (length BETWEEN 13 AND 19),
    expiry_year  bigint,
    expiry_month bigint CHECK (expiry_month BETWEEN 1 AND 12),
    status       word NOT NULL CHECK (status IN ('active', 'blocked', 'revoked')),
    sealed       bytea NOT NULL, -- empty once erased
    digest       bytea,          -- NULL once erased
    created_at   bigint NOT NULL,
    CHECK ((expiry_year IS NULL) = (expiry_month IS NULL)),
    CHECK (digest IS NOT NULL OR status = 'revoked')
);
CREATE INDEX cards_by_customer ON cards (customer_id);
CREATE UNIQUE INDEX one_live_card_a_number ON cards (customer_id, digest) WHERE status <> 'revoked';

CREATE TABLE payees (
    id              word PRIMARY KEY,
    name            word NOT NULL,
    spoken_name_wav bytea,
    created_at      bigint NOT NULL
);

CREATE TABLE requests (
    id           word PRIMARY KEY,
    customer_id  word NOT NULL REFERENCES customers (id),
    payee_id     word NOT NULL REFERENCES payees (id),
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    currency     word NOT NULL,
    due          word,
    expires_at   bigint,
    status       word NOT NULL CHECK (status IN ('open', 'paid', 'cancelled', 'expired')),
    held_by      word, -- the intent that is paying it, or paid it
    created_at   bigint NOT NULL,
    CHECK (status <> 'paid' OR held_by IS NOT NULL)
);
CREATE INDEX requests_by_customer ON requests (customer_id, status);

CREATE TABLE calls (
    id          word PRIMARY KEY,
    customer_id word REFERENCES customers (id),
    calling     word,
    trunk       word NOT NULL,
    started_at  bigint NOT NULL,
    ended_at    bigint,
    verdict     word,
    record      word NOT NULL
);
CREATE INDEX calls_by_start ON calls (started_at);

CREATE TABLE intents (
    id           word PRIMARY KEY,
    customer_id  word NOT NULL REFERENCES customers (id),
    request_id   word NOT NULL REFERENCES requests (id),
    payee_id     word NOT NULL REFERENCES payees (id),
    card_id      word NOT NULL REFERENCES cards (id),
    last4        word NOT NULL,
    call_id      word NOT NULL,
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    currency     word NOT NULL,
    status       word NOT NULL CHECK (status IN ('pending', 'paid', 'failed')),
    evidence     word NOT NULL,
    created_at   bigint NOT NULL
);
-- A call submits a request once; a request has one live intent and one successful charge, whatever the program does.
CREATE UNIQUE INDEX one_intent_a_call_and_request ON intents (call_id, request_id);
CREATE UNIQUE INDEX one_live_intent_a_request ON intents (request_id) WHERE status = 'pending';
CREATE UNIQUE INDEX one_charge_a_request ON intents (request_id) WHERE status = 'paid';

CREATE TABLE attempts (
    id           word PRIMARY KEY,
    intent_id    word NOT NULL REFERENCES intents (id),
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    currency     word NOT NULL,
    state        word NOT NULL CHECK (state IN
                 ('prepared', 'dispatched', 'needs_reconciliation', 'succeeded', 'declined', 'reversed')),
    detail       word NOT NULL, -- the whole state as JSON
    version      bigint NOT NULL,
    created_at   bigint NOT NULL
);
CREATE UNIQUE INDEX one_live_attempt_an_intent ON attempts (intent_id)
    WHERE state IN ('prepared', 'dispatched', 'needs_reconciliation');
CREATE UNIQUE INDEX one_success_an_intent ON attempts (intent_id) WHERE state = 'succeeded';
CREATE INDEX attempts_by_state ON attempts (state, created_at);
CREATE TRIGGER ended_attempts_stay BEFORE UPDATE ON attempts FOR EACH ROW
    WHEN (old.state IN ('succeeded', 'declined', 'reversed'))
    EXECUTE FUNCTION refuse('an attempt that has ended does not change');

CREATE TABLE transfers (
    seq          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id           word NOT NULL UNIQUE,
    kind         word NOT NULL CHECK (kind IN ('pending', 'post', 'void')),
    of_id        word REFERENCES transfers (id),
    debit        word NOT NULL,
    credit       word NOT NULL,
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    currency     word NOT NULL,
    intent_id    word NOT NULL REFERENCES intents (id),
    at           bigint NOT NULL,
    CHECK ((kind = 'pending') = (of_id IS NULL)),
    CHECK (debit <> credit)
);
CREATE UNIQUE INDEX a_pending_transfer_ends_once ON transfers (of_id) WHERE of_id IS NOT NULL;
CREATE INDEX transfers_by_intent ON transfers (intent_id);
CREATE TRIGGER transfers_append_only BEFORE UPDATE OR DELETE ON transfers
    FOR EACH ROW EXECUTE FUNCTION refuse('the books are append-only');
CREATE TRIGGER transfers_never_emptied BEFORE TRUNCATE ON transfers
    EXECUTE FUNCTION refuse('the books are append-only');

CREATE TABLE receipts (
    id        word PRIMARY KEY,
    reference word NOT NULL UNIQUE CHECK (length(reference) = 10),
    intent_id word NOT NULL UNIQUE REFERENCES intents (id),
    body      word NOT NULL,
    at        bigint NOT NULL
);
CREATE TRIGGER receipts_append_only BEFORE UPDATE OR DELETE ON receipts
    FOR EACH ROW EXECUTE FUNCTION refuse('receipts are append-only');
CREATE TRIGGER receipts_never_emptied BEFORE TRUNCATE ON receipts
    EXECUTE FUNCTION refuse('receipts are append-only');

CREATE TABLE invites (
    id          word PRIMARY KEY,
    customer_id word NOT NULL REFERENCES customers (id),
    code_digest bytea NOT NULL,
    expires_at  bigint NOT NULL,
    wrong_tries bigint NOT NULL DEFAULT 0,
    used_at     bigint,
    ended_at    bigint -- a newer invitation took its place
);
CREATE UNIQUE INDEX one_open_invite_a_customer ON invites (customer_id) WHERE used_at IS NULL AND ended_at IS NULL;
CREATE UNIQUE INDEX one_open_invite_a_code ON invites (code_digest) WHERE used_at IS NULL AND ended_at IS NULL;

CREATE TABLE templates (
    customer_id word PRIMARY KEY REFERENCES customers (id),
    model       word NOT NULL,
    sealed      bytea NOT NULL,
    created_at  bigint NOT NULL
);

CREATE TABLE consents (
    seq          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id  word NOT NULL REFERENCES customers (id),
    text_version word NOT NULL,
    given_by     word NOT NULL,
    given_at     bigint NOT NULL,
    call_id      word,
    invite_id    word
);

CREATE TABLE factor_failures (
    seq         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    factor      word NOT NULL,
    customer_id word REFERENCES customers (id),
    calling     word,
    trunk       word NOT NULL,
    attested    boolean NOT NULL,
    call_id     word NOT NULL,
    at          bigint NOT NULL
);
CREATE INDEX failures_by_customer ON factor_failures (customer_id, at);
CREATE INDEX failures_by_calling ON factor_failures (calling, at);
CREATE INDEX failures_by_trunk ON factor_failures (trunk, at);

CREATE TABLE audit (
    seq     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id      word NOT NULL UNIQUE,
    at      bigint NOT NULL,
    actor   word NOT NULL,
    action  word NOT NULL,
    subject word NOT NULL,
    detail  word NOT NULL
);
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE ON audit
    FOR EACH ROW EXECUTE FUNCTION refuse('the audit trail is append-only');
CREATE TRIGGER audit_never_emptied BEFORE TRUNCATE ON audit
    EXECUTE FUNCTION refuse('the audit trail is append-only');

CREATE TABLE outbox (
    seq          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id           word NOT NULL UNIQUE,
    at           bigint NOT NULL,
    topic        word NOT NULL,
    payload      word NOT NULL,
    delivered_at bigint
);
CREATE INDEX outbox_waiting ON outbox (seq) WHERE delivered_at IS NULL;
