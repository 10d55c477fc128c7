-- Templates that follow their voice, by consent and reversibly.

-- When the customer agreed to it; NULL: did not. Enrolling anew asks anew.
ALTER TABLE templates ADD COLUMN follow_consent_at bigint;

-- What a step replaced, sealed as it was: the way back. `seq` 1 is the enrolled one, which drift is measured from.
CREATE TABLE earlier_templates (
    customer_id word NOT NULL REFERENCES customers (id),
    seq         bigint NOT NULL CHECK (seq >= 1),
    model       word NOT NULL,
    sealed      bytea NOT NULL,
    created_at  bigint NOT NULL,
    PRIMARY KEY (customer_id, seq)
);
