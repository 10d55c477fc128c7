-- What a bank tells us of deductions, and what followed: a journal a reference (the payment request's id). Everything that is
-- known of a reference is folded from it.

-- Which references need somebody, and how long each journal is: two that append at once can't both find it as they read it.
-- All of it follows from `bank_events`. A bank may speak of a request that we never had, so that nothing here refers to
-- `requests`.
CREATE TABLE bank_references (
    reference   word PRIMARY KEY,
    length      bigint NOT NULL CHECK (length > 0),
    open        boolean NOT NULL, -- something waits for a side or for the bank's answer
    quarantined bigint NOT NULL CHECK (quarantined >= 0) -- messages that wait for a person
);
CREATE INDEX open_bank_references ON bank_references (reference, length) WHERE open;
CREATE INDEX quarantined_bank_references ON bank_references (reference) WHERE quarantined > 0;
CREATE TRIGGER bank_references_only_grow BEFORE UPDATE ON bank_references FOR EACH ROW
    WHEN (new.length <= old.length OR new.reference <> old.reference)
    EXECUTE FUNCTION refuse('the journal of deductions only grows');
CREATE TRIGGER bank_references_never_go BEFORE DELETE ON bank_references FOR EACH ROW
    EXECUTE FUNCTION refuse('the journal of deductions only grows');
CREATE TRIGGER bank_references_never_emptied BEFORE TRUNCATE ON bank_references
    EXECUTE FUNCTION refuse('the journal of deductions only grows');

CREATE TABLE bank_events (
    reference  word NOT NULL REFERENCES bank_references (reference),
    seq        bigint NOT NULL CHECK (seq >= 0),
    at         bigint NOT NULL,
    kind       word NOT NULL,
    message_id word, -- of a message that was received: the bank's name for it, which no other message may have
    detail     word NOT NULL, -- the whole event as JSON
    PRIMARY KEY (reference, seq),
    CHECK ((kind = 'received') = (message_id IS NOT NULL))
);
CREATE UNIQUE INDEX bank_message_ids ON bank_events (message_id) WHERE message_id IS NOT NULL;
-- For the end of the day: what the bank answered on it.
CREATE INDEX bank_answers ON bank_events (at, reference, seq) WHERE kind = 'answered';
CREATE TRIGGER bank_events_append_only BEFORE UPDATE OR DELETE ON bank_events
    FOR EACH ROW EXECUTE FUNCTION refuse('the journal of deductions is append-only');
CREATE TRIGGER bank_events_never_emptied BEFORE TRUNCATE ON bank_events
    EXECUTE FUNCTION refuse('the journal of deductions is append-only');
