-- One attempt is one operation at the acquirer: a charge, an authorisation, a capture, a void or a refund. All go through the same states.

-- STRICT tables can't change a CHECK, so the table is built anew. Nothing refers to it yet, so that its rows can move without touching others.
CREATE TABLE attempts_of_operations (
    number            INTEGER PRIMARY KEY AUTOINCREMENT, -- counts up; trace numbers of wires come from it
    id                TEXT NOT NULL UNIQUE,              -- our reference at the acquirer
    intent_id         TEXT NOT NULL REFERENCES intents (id),
    operation         TEXT NOT NULL CHECK (operation IN ('charge', 'authorise', 'capture', 'void', 'refund')),
    of_attempt        TEXT REFERENCES attempts_of_operations (id), -- what is captured, voided or refunded
    gateway           TEXT NOT NULL,                     -- which acquirer: another one can't be asked about it
    amount_minor      INTEGER NOT NULL CHECK (amount_minor > 0),
    currency          TEXT NOT NULL,
    state             TEXT NOT NULL CHECK (state IN
                      ('prepared', 'dispatched', 'needs_reconciliation', 'conflicted', 'succeeded', 'declined', 'reversed')),
    detail            TEXT NOT NULL,                     -- the whole state as JSON
    gateway_reference TEXT,                              -- what the acquirer calls it, once it said so
    version           INTEGER NOT NULL,
    due_at            INTEGER,                           -- when a worker should look at it; NULL once it has ended
    lease_owner       TEXT,                              -- the worker that is at it
    lease_until       INTEGER,                           -- from then on another worker may take it over
    created_at        INTEGER NOT NULL,
    CHECK ((operation IN ('charge', 'authorise')) = (of_attempt IS NULL)),
    CHECK ((state IN ('succeeded', 'declined', 'reversed')) = (due_at IS NULL)),
    CHECK ((lease_owner IS NULL) = (lease_until IS NULL)),
    CHECK (due_at IS NOT NULL OR lease_owner IS NULL)
) STRICT;
-- What was in doubt because the acquirer charged something else waits for a person now, in a state of its own.
INSERT INTO attempts_of_operations
    (id, intent_id, operation, gateway, amount_minor, currency, state, detail, gateway_reference, version, due_at, created_at)
SELECT id, intent_id, 'charge', 'sandbox', amount_minor, currency,
    CASE WHEN json_extract(detail, '$.doubt.doubt') = 'mismatch' THEN 'conflicted' ELSE state END,
    CASE WHEN json_extract(detail, '$.doubt.doubt') = 'mismatch'
        THEN json_set(json_remove(detail, '$.doubt'), '$.state', 'conflicted', '$.charged', json(json_extract(detail, '$.doubt.charged')))
        ELSE json_remove(detail, '$.doubt') END,
    json_extract(detail, '$.gateway_reference'), version,
    CASE WHEN state IN ('succeeded', 'declined', 'reversed') THEN NULL ELSE created_at END,
    created_at
FROM attempts ORDER BY created_at, id;
DROP TABLE attempts;
ALTER TABLE attempts_of_operations RENAME TO attempts;

CREATE INDEX attempts_by_intent ON attempts (intent_id);
-- The workers' queue: only what has no end yet, so that it stays small whatever has gone before.
CREATE INDEX attempts_due ON attempts (gateway, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX attempts_in_conflict ON attempts (created_at) WHERE state = 'conflicted';
CREATE INDEX attempts_by_gateway_reference ON attempts (gateway_reference) WHERE gateway_reference IS NOT NULL;
-- Whatever the program does: an intent is charged or authorised once, and what was authorised is captured once or voided once.
CREATE UNIQUE INDEX one_opening_an_intent ON attempts (intent_id)
    WHERE operation IN ('charge', 'authorise') AND state NOT IN ('declined', 'reversed');
CREATE UNIQUE INDEX one_end_of_an_authorisation ON attempts (intent_id)
    WHERE operation IN ('capture', 'void') AND state NOT IN ('declined', 'reversed');
CREATE TRIGGER refunds_stay_within_what_was_captured BEFORE INSERT ON attempts WHEN new.operation = 'refund'
BEGIN
    SELECT RAISE(ABORT, 'refunds would exceed what was captured') WHERE new.amount_minor
        + (SELECT coalesce(sum(amount_minor), 0) FROM attempts
           WHERE intent_id = new.intent_id AND operation = 'refund' AND state NOT IN ('declined', 'reversed'))
        > (SELECT coalesce(sum(amount_minor), 0) FROM attempts
           WHERE intent_id = new.intent_id AND operation IN ('charge', 'capture') AND state = 'succeeded' AND currency = new.currency);
END;
CREATE TRIGGER ended_attempts_stay BEFORE UPDATE ON attempts WHEN old.state IN ('succeeded', 'declined', 'reversed')
BEGIN SELECT RAISE(ABORT, 'an attempt that has ended does not change'); END;
CREATE TRIGGER attempts_never_go BEFORE DELETE ON attempts BEGIN SELECT RAISE(ABORT, 'attempts are never deleted'); END;

-- `pending` holds the request (being charged, or authorised), `paid` has paid it, `failed` let it go. Everything finer follows from the attempts.
ALTER TABLE intents ADD COLUMN capture TEXT NOT NULL DEFAULT 'automatic' CHECK (capture IN ('automatic', 'manual'));
ALTER TABLE intents ADD COLUMN authorisation_expires_at INTEGER; -- set once authorised; unused till then, it is voided
CREATE INDEX intents_by_time ON intents (created_at);
CREATE INDEX live_intents_by_customer ON intents (customer_id) WHERE status = 'pending';
CREATE INDEX authorisations_by_expiry ON intents (authorisation_expires_at)
    WHERE status = 'pending' AND authorisation_expires_at IS NOT NULL;
CREATE INDEX requests_by_expiry ON requests (expires_at)
    WHERE status = 'open' AND held_by IS NULL AND expires_at IS NOT NULL;

-- Why a row stands in the books: the attempt or the dispute.
DROP TRIGGER transfers_never_change;
ALTER TABLE transfers ADD COLUMN cause TEXT NOT NULL DEFAULT '';
UPDATE transfers SET cause = (SELECT a.id FROM attempts a WHERE a.intent_id = transfers.intent_id);
CREATE TRIGGER transfers_never_change BEFORE UPDATE ON transfers BEGIN SELECT RAISE(ABORT, 'the books are append-only'); END;

-- Captures, voids and refunds that were asked for: the same key means the same command, with the same content, once.
CREATE TABLE commands (
    key          TEXT PRIMARY KEY,
    intent_id    TEXT NOT NULL REFERENCES intents (id),
    operation    TEXT NOT NULL CHECK (operation IN ('capture', 'void', 'refund')),
    amount_minor INTEGER, -- NULL: all that was left
    currency     TEXT,
    attempt_id   TEXT NOT NULL UNIQUE REFERENCES attempts (id),
    created_at   INTEGER NOT NULL,
    CHECK ((amount_minor IS NULL) = (currency IS NULL))
) STRICT, WITHOUT ROWID;
CREATE TRIGGER commands_never_change BEFORE UPDATE ON commands BEGIN SELECT RAISE(ABORT, 'commands are append-only'); END;
CREATE TRIGGER commands_never_go BEFORE DELETE ON commands BEGIN SELECT RAISE(ABORT, 'commands are append-only'); END;

-- Payments that a cardholder contests at the issuer.
CREATE TABLE disputes (
    id           TEXT PRIMARY KEY,
    intent_id    TEXT NOT NULL REFERENCES intents (id),
    reference    TEXT NOT NULL UNIQUE, -- what the acquirer calls it
    amount_minor INTEGER NOT NULL CHECK (amount_minor > 0),
    currency     TEXT NOT NULL,
    reason       TEXT NOT NULL,
    state        TEXT NOT NULL CHECK (state IN ('opened', 'won', 'lost')),
    opened_at    INTEGER NOT NULL,
    closed_at    INTEGER,
    CHECK ((state = 'opened') = (closed_at IS NULL))
) STRICT;
CREATE INDEX disputes_by_intent ON disputes (intent_id);
CREATE TRIGGER closed_disputes_stay BEFORE UPDATE ON disputes WHEN old.state <> 'opened'
BEGIN SELECT RAISE(ABORT, 'a dispute that is closed does not change'); END;
CREATE TRIGGER disputes_never_go BEFORE DELETE ON disputes BEGIN SELECT RAISE(ABORT, 'disputes are never deleted'); END;
