-- What a bank tells us of deductions, and what followed: a journal a reference (the payment request's id). Everything that is
-- known of a reference is folded from it.

-- Which references need somebody, and how long each journal is: two that append at once can't both find it as they read it.
-- All of it follows from `bank_events`. A bank may speak of a request that we never had, so that nothing here refers to
-- `requests`.
CREATE TABLE bank_references (
    reference   TEXT PRIMARY KEY,
    length      INTEGER NOT NULL CHECK (length > 0),
    open        INTEGER NOT NULL CHECK (open IN (0, 1)), -- something waits for a side or for the bank's answer
    quarantined INTEGER NOT NULL CHECK (quarantined >= 0) -- messages that wait for a person
) STRICT, WITHOUT ROWID;
CREATE INDEX open_bank_references ON bank_references (reference, length) WHERE open = 1;
CREATE INDEX quarantined_bank_references ON bank_references (reference) WHERE quarantined > 0;
CREATE TRIGGER bank_references_only_grow BEFORE UPDATE ON bank_references
WHEN new.length <= old.length OR new.reference <> old.reference
BEGIN SELECT RAISE(ABORT, 'the journal of deductions only grows'); END;
CREATE TRIGGER bank_references_never_go BEFORE DELETE ON bank_references
BEGIN SELECT RAISE(ABORT, 'the journal of deductions only grows'); END;

CREATE TABLE bank_events (
    reference  TEXT NOT NULL REFERENCES bank_references (reference),
    seq        INTEGER NOT NULL CHECK (seq >= 0),
    at         INTEGER NOT NULL,
    kind       TEXT NOT NULL,
    message_id TEXT, -- of a message that was received: the bank's name for it, which no other message may have
    detail     TEXT NOT NULL, -- the whole event as JSON
    PRIMARY KEY (reference, seq),
    CHECK ((kind = 'received') = (message_id IS NOT NULL))
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX bank_message_ids ON bank_events (message_id) WHERE message_id IS NOT NULL;
-- For the end of the day: what the bank answered on it.
CREATE INDEX bank_answers ON bank_events (at, reference, seq) WHERE kind = 'answered';
CREATE TRIGGER bank_events_never_change BEFORE UPDATE ON bank_events
BEGIN SELECT RAISE(ABORT, 'the journal of deductions is append-only'); END;
CREATE TRIGGER bank_events_never_go BEFORE DELETE ON bank_events
BEGIN SELECT RAISE(ABORT, 'the journal of deductions is append-only'); END;
