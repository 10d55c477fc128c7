-- Fingerprints of utterances that were heard, sealed: a recording that is played back is known again. They expire.
CREATE TABLE fingerprints (
    seq         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id word NOT NULL REFERENCES customers (id),
    sealed      bytea NOT NULL,
    heard_at    bigint NOT NULL,
    expires_at  bigint NOT NULL
);
CREATE INDEX fingerprints_by_customer ON fingerprints (customer_id, seq);
CREATE INDEX fingerprints_by_expiry ON fingerprints (expires_at);
