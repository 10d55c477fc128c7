-- Fingerprints of utterances that were heard, sealed: a recording that is played back is known again. They expire.
CREATE TABLE fingerprints (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    customer_id TEXT NOT NULL REFERENCES customers (id),
    sealed      BLOB NOT NULL,
    heard_at    INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX fingerprints_by_customer ON fingerprints (customer_id, seq);
CREATE INDEX fingerprints_by_expiry ON fingerprints (expires_at);
