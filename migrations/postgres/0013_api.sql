-- Who may call the API, and what it answered: tenants, their keys, and answers that are given again.

CREATE TABLE tenants (
    name       word NOT NULL PRIMARY KEY,
    title      word NOT NULL, -- for people
    created_at bigint NOT NULL
);
INSERT INTO tenants (name, title, created_at) VALUES ('default', 'The one that there is where nobody speaks of tenants', 0);
INSERT INTO tenants (name, title, created_at)
    SELECT DISTINCT tenant, tenant, 0 FROM (SELECT tenant FROM customers UNION SELECT tenant FROM payees) AS all_of_them WHERE tenant <> 'default';

CREATE TABLE api_keys (
    id         word NOT NULL PRIMARY KEY,
    tenant     word NOT NULL REFERENCES tenants (name),
    name       word NOT NULL, -- for people
    digest     bytea NOT NULL UNIQUE CHECK (length(digest) = 32), -- keyed; the key itself is shown once and kept nowhere
    scopes     word NOT NULL, -- words with spaces between
    created_at bigint NOT NULL,
    expires_at bigint, -- NULL: never
    revoked_at bigint
);
CREATE INDEX api_keys_by_tenant ON api_keys (tenant, id);

-- What was asked with an idempotency key, as a keyed digest, and the answer that it gets again.
CREATE TABLE api_answers (
    api_key    word NOT NULL REFERENCES api_keys (id),
    key        word NOT NULL,
    request    bytea NOT NULL CHECK (length(request) = 32),
    begun_at   bigint NOT NULL,
    leased_to  bigint NOT NULL, -- an unanswered one may be begun anew from then on
    expires_at bigint NOT NULL,
    status     bigint, -- NULL: no answer yet
    body       bytea, -- sealed
    PRIMARY KEY (api_key, key),
    CHECK ((status IS NULL) = (body IS NULL))
);
CREATE INDEX api_answers_by_expiry ON api_answers (expires_at);
