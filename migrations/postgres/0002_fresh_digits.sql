-- Fresh digits, and languages.

-- Every string of digits that a customer was ever asked to say, as a keyed digest: none is asked for twice.
CREATE TABLE challenges (
    customer_id word NOT NULL REFERENCES customers (id),
    digest      bytea NOT NULL CHECK (length(digest) = 32),
    drawn_at    bigint NOT NULL,
    PRIMARY KEY (customer_id, digest)
);

-- Which language the service speaks with this customer: an ISO 639-1 code.
ALTER TABLE customers ADD COLUMN language word NOT NULL DEFAULT 'en';
