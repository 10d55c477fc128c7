-- Who may call the API, and what it answered: tenants, their keys, and answers that are given again.

CREATE TABLE tenants (
    name       TEXT NOT NULL PRIMARY KEY,
    title      TEXT NOT NULL, -- for people
    created_at INTEGER NOT NULL
) STRICT;
INSERT INTO tenants (name, title, created_at) VALUES ('default', 'The one that there is where nobody speaks of tenants', 0);
INSERT INTO tenants (name, title, created_at)
    SELECT DISTINCT tenant, tenant, 0 FROM (SELECT tenant FROM customers UNION SELECT tenant FROM payees) WHERE tenant <> 'default';

CREATE TABLE api_keys (
    id         TEXT NOT NULL PRIMARY KEY,
    tenant     TEXT NOT NULL REFERENCES tenants (name),
    name       TEXT NOT NULL, -- for people
    digest     BLOB NOT NULL UNIQUE CHECK (length(digest) = 32), -- keyed; the key itself is shown once and kept nowhere
    scopes     TEXT NOT NULL, -- words with spaces between
    created_at INTEGER NOT NULL,
    expires_at INTEGER, -- NULL: never
    revoked_at INTEGER
) STRICT;
CREATE INDEX api_keys_by_tenant ON api_keys (tenant, id);

-- What was asked with an idempotency key, as a keyed digest, and the answer that it gets again.
CREATE TABLE api_answers (
    api_key    TEXT NOT NULL REFERENCES api_keys (id),
    key        TEXT NOT NULL,
    request    BLOB NOT NULL CHECK (length(request) = 32),
    begun_at   INTEGER NOT NULL,
    leased_to  INTEGER NOT NULL, -- an unanswered one may be begun anew from then on
    expires_at INTEGER NOT NULL,
    status     INTEGER, -- NULL: no answer yet
    body       BLOB, -- sealed
    PRIMARY KEY (api_key, key),
    CHECK ((status IS NULL) = (body IS NULL))
) STRICT;
CREATE INDEX api_answers_by_expiry ON api_answers (expires_at);
