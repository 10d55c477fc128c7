-- One attempt is one operation at the acquirer: a charge, an authorisation, a capture, a void or a refund. All go through the same states.

-- For statements that assert how many rows they touched: fails them, with everything that they did.
CREATE FUNCTION must(holds boolean, what text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    IF holds THEN RETURN true; END IF;
    RAISE EXCEPTION '%', what USING ERRCODE = 'VP002';
END
$$;

DROP TRIGGER ended_attempts_stay ON attempts;
DROP INDEX one_live_attempt_an_intent;
DROP INDEX one_success_an_intent;
DROP INDEX attempts_by_state;
ALTER TABLE attempts
    ADD COLUMN number            bigint,                          -- counts up, with gaps; trace numbers of wires come from it
    ADD COLUMN operation         word NOT NULL DEFAULT 'charge' CHECK (operation IN ('charge', 'authorise', 'capture', 'void', 'refund')),
    ADD COLUMN of_attempt        word REFERENCES attempts (id),   -- what is captured, voided or refunded
    ADD COLUMN gateway           word NOT NULL DEFAULT 'sandbox', -- which acquirer: another one can't be asked about it
    ADD COLUMN gateway_reference word,                            -- what the acquirer calls it, once it said so
    ADD COLUMN due_at            bigint,                          -- when a worker should look at it; NULL once it has ended
    ADD COLUMN lease_owner       word,                            -- the worker that is at it
    ADD COLUMN lease_until       bigint,                          -- from then on another worker may take it over
    DROP CONSTRAINT attempts_state_check;
-- What was in doubt because the acquirer charged something else waits for a person now, in a state of its own.
UPDATE attempts SET
    number = numbered.number,
    gateway_reference = attempts.detail::jsonb ->> 'gateway_reference',
    due_at = CASE WHEN state IN ('succeeded', 'declined', 'reversed') THEN NULL ELSE created_at END,
    state = CASE WHEN detail::jsonb #>> '{doubt,doubt}' = 'mismatch' THEN 'conflicted' ELSE state END,
    detail = CASE
        WHEN detail::jsonb #>> '{doubt,doubt}' = 'mismatch' THEN
            ((detail::jsonb - 'doubt')
             || jsonb_build_object('state', 'conflicted', 'charged', detail::jsonb #> '{doubt,charged}'))::text
        WHEN detail::jsonb ? 'doubt' THEN (detail::jsonb - 'doubt')::text
        ELSE detail END
FROM (SELECT id, row_number() OVER (ORDER BY created_at, id) AS number FROM attempts) AS numbered
WHERE attempts.id = numbered.id;
ALTER TABLE attempts
    ALTER COLUMN operation DROP DEFAULT,
    ALTER COLUMN gateway DROP DEFAULT,
    ALTER COLUMN number SET NOT NULL,
    ALTER COLUMN number ADD GENERATED ALWAYS AS IDENTITY,
    ADD UNIQUE (number),
    ADD CHECK (state IN ('prepared', 'dispatched', 'needs_reconciliation', 'conflicted', 'succeeded', 'declined', 'reversed')),
    ADD CHECK ((operation IN ('charge', 'authorise')) = (of_attempt IS NULL)),
    ADD CHECK ((state IN ('succeeded', 'declined', 'reversed')) = (due_at IS NULL)),
    ADD CHECK ((lease_owner IS NULL) = (lease_until IS NULL)),
    ADD CHECK (due_at IS NOT NULL OR lease_owner IS NULL);
SELECT setval(pg_get_serial_sequence('attempts', 'number'), (SELECT coalesce(max(number), 0) + 1 FROM attempts), false);

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
-- The payment's row is locked before anything is added up: two refunds at once are added up one after the other.
CREATE FUNCTION refunds_within_captured() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    refunded numeric;
    captured numeric;
BEGIN
    PERFORM 1 FROM intents WHERE id = new.intent_id FOR NO KEY UPDATE;
    SELECT coalesce(sum(amount_minor), 0) INTO refunded FROM attempts
        WHERE intent_id = new.intent_id AND operation = 'refund' AND state NOT IN ('declined', 'reversed');
    SELECT coalesce(sum(amount_minor), 0) INTO captured FROM attempts
        WHERE intent_id = new.intent_id AND operation IN ('charge', 'capture') AND state = 'succeeded' AND currency = new.currency;
    IF new.amount_minor + refunded > captured THEN
        RAISE EXCEPTION 'refunds would exceed what was captured' USING ERRCODE = 'VP001';
    END IF;
    RETURN new;
END
$$;
CREATE TRIGGER refunds_stay_within_what_was_captured BEFORE INSERT ON attempts FOR EACH ROW
    WHEN (new.operation = 'refund') EXECUTE FUNCTION refunds_within_captured();
CREATE TRIGGER ended_attempts_stay BEFORE UPDATE ON attempts FOR EACH ROW
    WHEN (old.state IN ('succeeded', 'declined', 'reversed'))
    EXECUTE FUNCTION refuse('an attempt that has ended does not change');
CREATE TRIGGER attempts_never_go BEFORE DELETE ON attempts FOR EACH ROW EXECUTE FUNCTION refuse('attempts are never deleted');
CREATE TRIGGER attempts_never_emptied BEFORE TRUNCATE ON attempts EXECUTE FUNCTION refuse('attempts are never deleted');

-- `pending` holds the request (being charged, or authorised), `paid` has paid it, `failed` let it go. Everything finer follows from the attempts.
ALTER TABLE intents
    ADD COLUMN capture word NOT NULL DEFAULT 'automatic' CHECK (capture IN ('automatic', 'manual')),
    ADD COLUMN authorisation_expires_at bigint; -- set once authorised; unused till then, it is voided
CREATE INDEX intents_by_time ON intents (created_at);
CREATE INDEX live_intents_by_customer ON intents (customer_id) WHERE status = 'pending';
CREATE INDEX authorisations_by_expiry ON intents (authorisation_expires_at)
    WHERE status = 'pending' AND authorisation_expires_at IS NOT NULL;
CREATE INDEX requests_by_expiry ON requests (expires_at)
    WHERE status = 'open' AND held_by IS NULL AND expires_at IS NOT NULL;

-- Why a row stands in the books: the attempt or the dispute.
DROP TRIGGER transfers_append_only ON transfers;
ALTER TABLE transfers ADD COLUMN cause word NOT NULL DEFAULT '';
UPDATE transfers SET cause = (SELECT a.id FROM attempts a WHERE a.intent_id = transfers.intent_id);
CREATE TRIGGER transfers_append_only BEFORE UPDATE OR DELETE ON transfers
    FOR EACH ROW EXECUTE FUNCTION refuse('the books are append-only');

-- Captures, voids and refunds that were asked for: the same key means the same command, with the same content, once.
CREATE TABLE commands (
    key          word PRIMARY KEY,
    intent_id    word NOT NULL REFERENCES intents (id),
    operation    word NOT NULL CHECK (operation IN ('capture', 'void', 'refund')),
    amount_minor bigint, -- NULL: all that was left
    currency     word,
    attempt_id   word NOT NULL UNIQUE REFERENCES attempts (id),
    created_at   bigint NOT NULL,
    CHECK ((amount_minor IS NULL) = (currency IS NULL))
);
CREATE TRIGGER commands_append_only BEFORE UPDATE OR DELETE ON commands
    FOR EACH ROW EXECUTE FUNCTION refuse('commands are append-only');
CREATE TRIGGER commands_never_emptied BEFORE TRUNCATE ON commands EXECUTE FUNCTION refuse('commands are append-only');

-- Payments that a cardholder contests at the issuer.
CREATE TABLE disputes (
    seq          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id           word NOT NULL UNIQUE,
    intent_id    word NOT NULL REFERENCES intents (id),
    reference    word NOT NULL UNIQUE, -- what the acquirer calls it
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    currency     word NOT NULL,
    reason       word NOT NULL,
    state        word NOT NULL CHECK (state IN ('opened', 'won', 'lost')),
    opened_at    bigint NOT NULL,
    closed_at    bigint,
    CHECK ((state = 'opened') = (closed_at IS NULL))
);
CREATE INDEX disputes_by_intent ON disputes (intent_id);
CREATE TRIGGER closed_disputes_stay BEFORE UPDATE ON disputes FOR EACH ROW WHEN (old.state <> 'opened')
    EXECUTE FUNCTION refuse('a dispute that is closed does not change');
CREATE TRIGGER disputes_never_go BEFORE DELETE ON disputes FOR EACH ROW EXECUTE FUNCTION refuse('disputes are never deleted');
CREATE TRIGGER disputes_never_emptied BEFORE TRUNCATE ON disputes EXECUTE FUNCTION refuse('disputes are never deleted');
