-- Keys, apart from what they seal: erasing one shreds its data, also in a copy of the other tables. No column holds a key in the clear.

-- Versions of the master key that something may be wrapped by. Retiring a version deletes its row, and the references below refuse that
-- while one row uses it. The newest is in force and can't be retired, so numbers are never used twice.
CREATE TABLE master_keys (
    version bigint PRIMARY KEY CHECK (version BETWEEN 1 AND 65535),
    proof   bytea NOT NULL, -- opens under this master key only: tells it from another one of the same number
    since   bigint NOT NULL
);

CREATE TABLE vault_secrets (
    name        word PRIMARY KEY,
    key_version bigint NOT NULL REFERENCES master_keys (version),
    wrapped     bytea NOT NULL
);

CREATE TABLE card_keys (
    card_id     word PRIMARY KEY REFERENCES cards (id),
    key_version bigint NOT NULL REFERENCES master_keys (version),
    wrapped     bytea NOT NULL
);
CREATE INDEX card_keys_by_version ON card_keys (key_version, card_id);

CREATE TABLE customer_keys (
    customer_id word PRIMARY KEY REFERENCES customers (id),
    key_version bigint NOT NULL REFERENCES master_keys (version),
    wrapped     bytea NOT NULL
);
CREATE INDEX customer_keys_by_version ON customer_keys (key_version, customer_id);

-- What another vault called a card that was brought here.
CREATE TABLE card_references (
    reference word PRIMARY KEY,
    card_id   word NOT NULL REFERENCES cards (id)
);
CREATE INDEX card_references_by_card ON card_references (card_id);
