-- What people agreed to and took back, each a row that never changes; when a voice was last of use, when a customer was deleted; and what
-- exports and clocks look things up by.

-- Which consent, to what, in which language, and how it was given. `how`: in a call, vouched for by somebody, over the API.
ALTER TABLE consents ADD COLUMN id TEXT NOT NULL DEFAULT '';
ALTER TABLE consents ADD COLUMN purpose TEXT NOT NULL DEFAULT 'voiceprint'
    CHECK (purpose IN ('voiceprint', 'following', 'mandate', 'account', 'recording'));
ALTER TABLE consents ADD COLUMN about TEXT NOT NULL DEFAULT ''; -- the mandate; empty: the voice
ALTER TABLE consents ADD COLUMN language TEXT NOT NULL DEFAULT 'en';
ALTER TABLE consents ADD COLUMN how TEXT NOT NULL DEFAULT 'voucher' CHECK (how IN ('call', 'voucher', 'api'));
INSERT INTO consents (customer_id, purpose, text_version, given_by, given_at)
    SELECT customer_id, 'following', 'written-1', 'not recorded', follow_consent_at FROM templates WHERE follow_consent_at IS NOT NULL;
INSERT INTO consents (customer_id, purpose, about, text_version, given_by, given_at, call_id)
    SELECT owner, 'mandate', id, 'not recorded', 'the caller', created_at,
        CASE WHEN substr(json_extract(body, '$.consent'), 1, 5) = 'call_' THEN json_extract(body, '$.consent') END FROM papers
    WHERE kind = 'mandate' ORDER BY created_at, id;
UPDATE consents SET
    id = 'cns_' || printf('%012d', seq),
    how = CASE WHEN call_id IS NULL THEN 'voucher' ELSE 'call' END,
    language = (SELECT language FROM customers c WHERE c.id = customer_id);
CREATE UNIQUE INDEX consents_by_id ON consents (id);
CREATE INDEX consents_by_customer ON consents (customer_id, seq);
CREATE INDEX consents_by_about ON consents (about) WHERE about <> '';

CREATE TABLE consent_withdrawals (
    consent_id   TEXT PRIMARY KEY REFERENCES consents (id),
    withdrawn_at INTEGER NOT NULL,
    withdrawn_by TEXT NOT NULL, -- the actor of the audit row
    how          TEXT NOT NULL CHECK (how IN ('call', 'operator', 'api', 'replaced', 'retention')),
    call_id      TEXT
) STRICT, WITHOUT ROWID;
-- One reading of the audit trail, which has no index by subject.
CREATE TABLE voice_ends (subject TEXT NOT NULL, at INTEGER NOT NULL, action TEXT NOT NULL) STRICT;
INSERT INTO voice_ends SELECT subject, at, action FROM audit WHERE action IN ('voice.withdrawn', 'voice.enrolled', 'customer.deleted');
CREATE INDEX voice_ends_by_subject ON voice_ends (subject, at);
-- Voices that were withdrawn before there were such rows: the audit trail knows when, where it was not enrolling anew that ended them.
INSERT INTO consent_withdrawals (consent_id, withdrawn_at, withdrawn_by, how)
    SELECT c.id,
        coalesce((SELECT min(e.at) FROM voice_ends e WHERE e.subject = c.customer_id AND e.at > c.given_at), c.given_at),
        'not recorded', CASE WHEN t.customer_id IS NULL THEN 'operator' ELSE 'replaced' END
    FROM consents c LEFT JOIN templates t ON t.customer_id = c.customer_id
    WHERE c.purpose = 'voiceprint' AND (t.customer_id IS NULL OR c.seq <> (SELECT max(l.seq) FROM consents l
        WHERE l.customer_id = c.customer_id AND l.purpose = 'voiceprint'));
INSERT INTO consent_withdrawals (consent_id, withdrawn_at, withdrawn_by, how)
    SELECT c.id, coalesce(json_extract(p.body, '$.revoked_at'), c.given_at), 'not recorded', 'operator'
    FROM consents c JOIN papers p ON p.kind = 'mandate' AND p.id = c.about WHERE c.purpose = 'mandate' AND p.open = 0;

ALTER TABLE customers ADD COLUMN deleted_at INTEGER;
UPDATE customers SET deleted_at = coalesce((SELECT max(at) FROM voice_ends WHERE subject = customers.id AND action = 'customer.deleted'), created_at)
    WHERE status = 'deleted';
DROP TABLE voice_ends;
CREATE INDEX customers_by_deletion ON customers (deleted_at) WHERE deleted_at IS NOT NULL;

CREATE TRIGGER consents_never_change BEFORE UPDATE ON consents BEGIN SELECT RAISE(ABORT, 'consents are append-only'); END;
CREATE TRIGGER consents_outlive_the_customer BEFORE DELETE ON consents
WHEN NOT EXISTS (SELECT 1 FROM customers WHERE id = old.customer_id AND status = 'deleted')
BEGIN SELECT RAISE(ABORT, 'consents are append-only'); END;
CREATE TRIGGER withdrawals_never_change BEFORE UPDATE ON consent_withdrawals
BEGIN SELECT RAISE(ABORT, 'consents are append-only'); END;
CREATE TRIGGER withdrawals_outlive_the_customer BEFORE DELETE ON consent_withdrawals
WHEN NOT EXISTS (SELECT 1 FROM consents c JOIN customers p ON p.id = c.customer_id WHERE c.id = old.consent_id AND p.status = 'deleted')
BEGIN SELECT RAISE(ABORT, 'consents are append-only'); END;

-- When the voice last held in a call, or was enrolled.
ALTER TABLE templates ADD COLUMN used_at INTEGER NOT NULL DEFAULT 0;
UPDATE templates SET used_at = max(created_at, coalesce((SELECT max(started_at) FROM calls WHERE customer_id = templates.customer_id
    AND verdict IN ('Paid', 'Waiting', 'Declined', 'OutcomeUnknown', 'Agreed', 'Disagreed')), 0));
CREATE INDEX templates_by_use ON templates (used_at);

CREATE INDEX calls_by_customer ON calls (customer_id, id) WHERE customer_id IS NOT NULL;
CREATE INDEX calls_with_evidence ON calls (started_at) WHERE record <> '{}';
CREATE INDEX code_deliveries_by_customer ON code_deliveries (customer_id);
CREATE INDEX callbacks_by_customer ON callbacks (customer_id);
CREATE INDEX failures_by_time ON factor_failures (at);
CREATE INDEX invites_by_expiry ON invites (expires_at);
CREATE INDEX papers_of_anybody ON papers (owner, kind, id);
CREATE INDEX papers_about_anybody ON papers (about, kind, id);
