-- The audit trail as a chain of hashes under a Merkle tree. Rows are written by everybody, in the transaction of what they tell
-- of; a sealer gives them their place in the chain soon after, so that no writer waits for the chain's end.

-- The chain's end: how many rows are sealed, the last hash, and the roots of the tree's perfect subtrees. All of it follows from
-- `audit_chain`; it is kept so that sealing costs the same whatever has gone before. Verification does not read it.
CREATE TABLE audit_head (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    log      TEXT NOT NULL CHECK (length(log) = 32),
    size     INTEGER NOT NULL CHECK (size >= 0),
    last_seq INTEGER NOT NULL, -- of the last row that was sealed: what comes after it is not
    head     BLOB NOT NULL CHECK (length(head) = 32),
    frontier BLOB NOT NULL CHECK (length(frontier) % 32 = 0)
) STRICT;
CREATE TRIGGER audit_head_only_grows BEFORE UPDATE ON audit_head
WHEN new.size < old.size OR new.log <> old.log OR new.last_seq < old.last_seq
BEGIN SELECT RAISE(ABORT, 'the audit chain only grows'); END;
CREATE TRIGGER audit_head_never_goes BEFORE DELETE ON audit_head BEGIN SELECT RAISE(ABORT, 'the audit chain only grows'); END;

CREATE TABLE audit_chain (
    position INTEGER PRIMARY KEY CHECK (position >= 0),
    seq      INTEGER NOT NULL UNIQUE REFERENCES audit (seq),
    hash     BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;
CREATE TRIGGER audit_chain_never_changes BEFORE UPDATE ON audit_chain
BEGIN SELECT RAISE(ABORT, 'the audit chain is append-only'); END;
CREATE TRIGGER audit_chain_never_goes BEFORE DELETE ON audit_chain
BEGIN SELECT RAISE(ABORT, 'the audit chain is append-only'); END;

-- The root over each 256 records: proofs are made of these without reading the whole chain.
CREATE TABLE audit_tiles (
    tile INTEGER PRIMARY KEY CHECK (tile >= 0),
    root BLOB NOT NULL CHECK (length(root) = 32)
) STRICT;
CREATE TRIGGER audit_tiles_never_change BEFORE UPDATE ON audit_tiles
BEGIN SELECT RAISE(ABORT, 'the audit chain is append-only'); END;
CREATE TRIGGER audit_tiles_never_go BEFORE DELETE ON audit_tiles BEGIN SELECT RAISE(ABORT, 'the audit chain is append-only'); END;

CREATE TABLE audit_checkpoints (
    size INTEGER PRIMARY KEY CHECK (size > 0),
    at   INTEGER NOT NULL,
    note TEXT NOT NULL -- signed
) STRICT;
CREATE TRIGGER audit_checkpoints_never_change BEFORE UPDATE ON audit_checkpoints
BEGIN SELECT RAISE(ABORT, 'checkpoints are append-only'); END;
CREATE TRIGGER audit_checkpoints_never_go BEFORE DELETE ON audit_checkpoints
BEGIN SELECT RAISE(ABORT, 'checkpoints are append-only'); END;

-- Which keys sign, and signed. No column holds a private key: the vault derives them. The newest version of a purpose is in
-- force.
CREATE TABLE signing_keys (
    purpose TEXT NOT NULL CHECK (purpose IN ('checkpoints', 'receipts', 'instructions')),
    version INTEGER NOT NULL CHECK (version >= 1),
    public  BLOB NOT NULL CHECK (length(public) = 32),
    made_at INTEGER NOT NULL,
    PRIMARY KEY (purpose, version)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER signing_keys_never_change BEFORE UPDATE ON signing_keys
BEGIN SELECT RAISE(ABORT, 'signing keys are append-only'); END;
CREATE TRIGGER signing_keys_never_go BEFORE DELETE ON signing_keys BEGIN SELECT RAISE(ABORT, 'signing keys are append-only'); END;

-- Each movement of money, and each receipt, writes its own audit row, whichever program writes it. The row's identifier is that
-- of what it tells of with another prefix, so that books and audit are compared by their keys.
CREATE TRIGGER transfers_are_audited AFTER INSERT ON transfers
BEGIN
    INSERT INTO audit (id, at, actor, action, subject, detail) VALUES (
        'aud_' || substr(new.id, length('tr_') + 1), new.at, 'books', 'transfer.' || new.kind, new.intent_id,
        json_object('transfer', new.id, 'of', new.of_id, 'debit', new.debit, 'credit', new.credit,
            'amount_minor', new.amount_minor, 'currency', new.currency, 'cause', new.cause));
END;
CREATE TRIGGER receipts_are_audited AFTER INSERT ON receipts
BEGIN
    INSERT INTO audit (id, at, actor, action, subject, detail) VALUES (
        'aud_' || substr(new.id, length('rcp_') + 1), new.at, 'books', 'receipt.issued', new.id,
        json_object('sha256', json_extract(new.body, '$.signature.sha256')));
END;
-- What moved before there were such rows has none.
INSERT INTO meta (key, value) SELECT 'audit.books_from', CAST(CAST(coalesce(max(seq), 0) AS TEXT) AS BLOB) FROM transfers;
