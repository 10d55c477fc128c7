-- The audit trail as a chain of hashes under a Merkle tree. Rows are written by everybody, in the transaction of what they tell of; a sealer gives
-- them their place in the chain soon after, so that no writer waits for the chain's end.

-- Rows that wait for their place. Numbers of rows are given before they are committed: a lower one may appear after a higher one was sealed, so
-- that what is sealed can't be told by the highest number. A row and its note here appear together.
CREATE TABLE audit_unsealed (
    seq bigint PRIMARY KEY
);
CREATE FUNCTION note_unsealed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_unsealed (seq) SELECT seq FROM fresh;
    RETURN NULL;
END
$$;
INSERT INTO audit_unsealed (seq) SELECT seq FROM audit;
CREATE TRIGGER audit_rows_wait_for_their_place AFTER INSERT ON audit REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION note_unsealed();

-- The chain's end: how many rows are sealed, the last hash, and the roots of the tree's perfect subtrees. All of it follows from `audit_chain`;
-- it is kept so that sealing costs the same whatever has gone before. Verification does not read it.
CREATE TABLE audit_head (
    id       bigint PRIMARY KEY CHECK (id = 1),
    log      word NOT NULL CHECK (length(log) = 32),
    size     bigint NOT NULL CHECK (size >= 0),
    head     bytea NOT NULL CHECK (length(head) = 32),
    frontier bytea NOT NULL CHECK (length(frontier) % 32 = 0)
);
CREATE TRIGGER audit_head_only_grows BEFORE UPDATE ON audit_head FOR EACH ROW
    WHEN (new.size < old.size OR new.log <> old.log) EXECUTE FUNCTION refuse('the audit chain only grows');
CREATE TRIGGER audit_head_never_goes BEFORE DELETE ON audit_head FOR EACH ROW EXECUTE FUNCTION refuse('the audit chain only grows');
CREATE TRIGGER audit_head_never_emptied BEFORE TRUNCATE ON audit_head EXECUTE FUNCTION refuse('the audit chain only grows');

CREATE TABLE audit_chain (
    position bigint PRIMARY KEY CHECK (position >= 0),
    seq      bigint NOT NULL UNIQUE REFERENCES audit (seq),
    hash     bytea NOT NULL CHECK (length(hash) = 32)
);
CREATE TRIGGER audit_chain_append_only BEFORE UPDATE OR DELETE ON audit_chain
    FOR EACH ROW EXECUTE FUNCTION refuse('the audit chain is append-only');
CREATE TRIGGER audit_chain_never_emptied BEFORE TRUNCATE ON audit_chain EXECUTE FUNCTION refuse('the audit chain is append-only');

-- The root over each 256 records: proofs are made of these without reading the whole chain.
CREATE TABLE audit_tiles (
    tile bigint PRIMARY KEY CHECK (tile >= 0),
    root bytea NOT NULL CHECK (length(root) = 32)
);
CREATE TRIGGER audit_tiles_append_only BEFORE UPDATE OR DELETE ON audit_tiles
    FOR EACH ROW EXECUTE FUNCTION refuse('the audit chain is append-only');
CREATE TRIGGER audit_tiles_never_emptied BEFORE TRUNCATE ON audit_tiles EXECUTE FUNCTION refuse('the audit chain is append-only');

CREATE TABLE audit_checkpoints (
    size bigint PRIMARY KEY CHECK (size > 0),
    at   bigint NOT NULL,
    note word NOT NULL -- signed
);
CREATE TRIGGER audit_checkpoints_append_only BEFORE UPDATE OR DELETE ON audit_checkpoints
    FOR EACH ROW EXECUTE FUNCTION refuse('checkpoints are append-only');
CREATE TRIGGER audit_checkpoints_never_emptied BEFORE TRUNCATE ON audit_checkpoints
    EXECUTE FUNCTION refuse('checkpoints are append-only');

-- Which keys sign, and signed. No column holds a private key: the vault derives them. The newest version of a purpose is in force.
CREATE TABLE signing_keys (
    purpose word NOT NULL CHECK (purpose IN ('checkpoints', 'receipts', 'instructions')),
    version bigint NOT NULL CHECK (version >= 1),
    public  bytea NOT NULL CHECK (length(public) = 32),
    made_at bigint NOT NULL,
    PRIMARY KEY (purpose, version)
);
CREATE TRIGGER signing_keys_append_only BEFORE UPDATE OR DELETE ON signing_keys
    FOR EACH ROW EXECUTE FUNCTION refuse('signing keys are append-only');
CREATE TRIGGER signing_keys_never_emptied BEFORE TRUNCATE ON signing_keys EXECUTE FUNCTION refuse('signing keys are append-only');

-- Each movement of money, and each receipt, writes its own audit row, whichever program writes it. The row's identifier is that of what it
-- tells of with another prefix, so that books and audit are compared by their keys.
CREATE FUNCTION audit_transfer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit (id, at, actor, action, subject, detail) VALUES (
        'aud_' || substr(new.id, length('tr_') + 1), new.at, 'books', 'transfer.' || new.kind, new.intent_id,
        json_build_object('transfer', new.id, 'of', new.of_id, 'debit', new.debit, 'credit', new.credit,
            'amount_minor', new.amount_minor, 'currency', new.currency, 'cause', new.cause)::text);
    RETURN NULL;
END
$$;
CREATE TRIGGER transfers_are_audited AFTER INSERT ON transfers FOR EACH ROW EXECUTE FUNCTION audit_transfer();
CREATE FUNCTION audit_receipt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit (id, at, actor, action, subject, detail) VALUES (
        'aud_' || substr(new.id, length('rcp_') + 1), new.at, 'books', 'receipt.issued', new.id,
        json_build_object('sha256', new.body::json #>> '{signature,sha256}')::text);
    RETURN NULL;
END
$$;
CREATE TRIGGER receipts_are_audited AFTER INSERT ON receipts FOR EACH ROW EXECUTE FUNCTION audit_receipt();
-- What moved before there were such rows has none.
INSERT INTO meta (key, value) SELECT 'audit.books_from', convert_to(coalesce(max(seq), 0)::text, 'UTF8') FROM transfers;
