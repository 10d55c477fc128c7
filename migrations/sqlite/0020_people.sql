-- What is asked of one person, and what clocks erase, found without a scan; and the consents of purchase-permission accounts among the others.

CREATE INDEX invites_by_customer ON invites (customer_id, expires_at);
CREATE INDEX code_deliveries_by_expiry ON code_deliveries (expires_at);
CREATE INDEX audit_by_subject ON audit (subject, seq);

-- A consent may be given by a signed link. SQLite can't change a CHECK, so both tables are built anew; what they hold stays as it is.
CREATE TABLE consents_of_now (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    id           TEXT NOT NULL DEFAULT '' UNIQUE,
    customer_id  TEXT NOT NULL REFERENCES customers (id),
    purpose      TEXT NOT NULL DEFAULT 'voiceprint' CHECK (purpose IN ('voiceprint', 'following', 'mandate', 'account', 'recording')),
    about        TEXT NOT NULL DEFAULT '', -- the mandate, the account; empty: the voice
    text_version TEXT NOT NULL,
    language     TEXT NOT NULL DEFAULT 'en',
    given_by     TEXT NOT NULL,
    how          TEXT NOT NULL DEFAULT 'voucher' CHECK (how IN ('call', 'voucher', 'api', 'link')),
    given_at     INTEGER NOT NULL,
    call_id      TEXT,
    invite_id    TEXT
) STRICT;
INSERT INTO consents_of_now (seq, id, customer_id, purpose, about, text_version, language, given_by, how, given_at, call_id, invite_id)
    SELECT seq, id, customer_id, purpose, about, text_version, language, given_by, how, given_at, call_id, invite_id FROM consents;
CREATE TABLE withdrawals_of_now (
    consent_id   TEXT PRIMARY KEY REFERENCES consents_of_now (id),
    withdrawn_at INTEGER NOT NULL,
    withdrawn_by TEXT NOT NULL, -- the actor of the audit row
    how          TEXT NOT NULL CHECK (how IN ('call', 'operator', 'api', 'replaced', 'retention')),
    call_id      TEXT
) STRICT, WITHOUT ROWID;
INSERT INTO withdrawals_of_now (consent_id, withdrawn_at, withdrawn_by, how, call_id)
    SELECT consent_id, withdrawn_at, withdrawn_by, how, call_id FROM consent_withdrawals;
DROP TABLE consent_withdrawals;
DROP TABLE consents;
ALTER TABLE consents_of_now RENAME TO consents;
ALTER TABLE withdrawals_of_now RENAME TO consent_withdrawals;
CREATE INDEX consents_by_customer ON consents (customer_id, seq);
CREATE INDEX consents_by_about ON consents (about) WHERE about <> '';

-- Accounts that were agreed to before: what their papers hold. Such a consent has the random part of the audit row that told of it.
INSERT INTO consents (id, customer_id, purpose, about, text_version, language, given_by, how, given_at)
    SELECT 'cns_' || substr(coalesce((SELECT a.id FROM audit a WHERE a.subject = p.id AND a.action = 'account.consented' ORDER BY a.seq LIMIT 1),
                                     p.id), 5),
        p.owner, 'account', p.id, json_extract(p.body, '$.state.consent.wording'), c.language,
        CASE json_extract(p.body, '$.state.consent.how.how') WHEN 'link' THEN 'the customer'
            ELSE 'api:' || json_extract(p.body, '$.state.consent.how.key') END,
        CASE json_extract(p.body, '$.state.consent.how.how') WHEN 'link' THEN 'link' ELSE 'api' END,
        json_extract(p.body, '$.state.consent.at')
    FROM papers p JOIN customers c ON c.id = p.owner
    WHERE p.kind = 'account' AND json_extract(p.body, '$.state.consent.wording') IS NOT NULL
    ORDER BY json_extract(p.body, '$.state.consent.at'), p.id;
INSERT INTO consent_withdrawals (consent_id, withdrawn_at, withdrawn_by, how)
    SELECT id, ended_at, coalesce(actor, 'not recorded'), CASE WHEN actor LIKE 'api:%' THEN 'api' ELSE 'operator' END
    FROM (SELECT k.id, json_extract(p.body, '$.state.at') AS ended_at,
              (SELECT a.actor FROM audit a WHERE a.subject = p.id AND a.action = 'account.closed' ORDER BY a.seq LIMIT 1) AS actor
          FROM consents k JOIN papers p ON p.kind = 'account' AND p.id = k.about WHERE k.purpose = 'account' AND p.open = 0) e;
INSERT INTO consent_withdrawals (consent_id, withdrawn_at, withdrawn_by, how)
    SELECT k.id, coalesce(c.deleted_at, k.given_at), 'not recorded', 'operator' FROM consents k JOIN customers c ON c.id = k.customer_id
    WHERE k.purpose = 'account' AND c.status = 'deleted' AND k.id NOT IN (SELECT consent_id FROM consent_withdrawals);

CREATE TRIGGER consents_never_change BEFORE UPDATE ON consents BEGIN SELECT RAISE(ABORT, 'consents are append-only'); END;
CREATE TRIGGER consents_outlive_the_customer BEFORE DELETE ON consents
WHEN NOT EXISTS (SELECT 1 FROM customers WHERE id = old.customer_id AND status = 'deleted')
BEGIN SELECT RAISE(ABORT, 'consents are append-only'); END;
CREATE TRIGGER withdrawals_never_change BEFORE UPDATE ON consent_withdrawals
BEGIN SELECT RAISE(ABORT, 'consents are append-only'); END;
CREATE TRIGGER withdrawals_outlive_the_customer BEFORE DELETE ON consent_withdrawals
WHEN NOT EXISTS (SELECT 1 FROM consents c JOIN customers p ON p.id = c.customer_id WHERE c.id = old.consent_id AND p.status = 'deleted')
BEGIN SELECT RAISE(ABORT, 'consents are append-only'); END;
