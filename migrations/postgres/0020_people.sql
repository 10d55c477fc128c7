-- What is asked of one person, and what clocks erase, found without a scan; and the consents of purchase-permission accounts among the others.

CREATE INDEX invites_by_customer ON invites (customer_id, expires_at);
CREATE INDEX code_deliveries_by_expiry ON code_deliveries (expires_at);
CREATE INDEX audit_by_subject ON audit (subject, seq);

-- A consent may be given by a signed link.
ALTER TABLE consents DROP CONSTRAINT consents_how_check;
ALTER TABLE consents ADD CONSTRAINT consents_how_check CHECK (how IN ('call', 'voucher', 'api', 'link'));

-- Accounts that were agreed to before: what their papers hold. Such a consent has the random part of the audit row that told of it.
INSERT INTO consents (id, customer_id, purpose, about, text_version, language, given_by, how, given_at)
    SELECT 'cns_' || substr(coalesce((SELECT a.id FROM audit a WHERE a.subject = p.id AND a.action = 'account.consented' ORDER BY a.seq LIMIT 1),
                                     p.id), 5),
        p.owner, 'account', p.id, p.body::json #>> '{state,consent,wording}', c.language,
        CASE p.body::json #>> '{state,consent,how,how}' WHEN 'link' THEN 'the customer'
            ELSE 'api:' || (p.body::json #>> '{state,consent,how,key}') END,
        CASE p.body::json #>> '{state,consent,how,how}' WHEN 'link' THEN 'link' ELSE 'api' END,
        (p.body::json #>> '{state,consent,at}')::bigint
    FROM papers p JOIN customers c ON c.id = p.owner
    WHERE p.kind = 'account' AND p.body::json #>> '{state,consent,wording}' IS NOT NULL
    ORDER BY (p.body::json #>> '{state,consent,at}')::bigint, p.id;
INSERT INTO consent_withdrawals (consent_id, withdrawn_at, withdrawn_by, how)
    SELECT id, ended_at, coalesce(actor, 'not recorded'), CASE WHEN actor LIKE 'api:%' THEN 'api' ELSE 'operator' END
    FROM (SELECT k.id, (p.body::json #>> '{state,at}')::bigint AS ended_at,
              (SELECT a.actor FROM audit a WHERE a.subject = p.id AND a.action = 'account.closed' ORDER BY a.seq LIMIT 1) AS actor
          FROM consents k JOIN papers p ON p.kind = 'account' AND p.id = k.about WHERE k.purpose = 'account' AND NOT p.open) e;
INSERT INTO consent_withdrawals (consent_id, withdrawn_at, withdrawn_by, how)
    SELECT k.id, coalesce(c.deleted_at, k.given_at), 'not recorded', 'operator' FROM consents k JOIN customers c ON c.id = k.customer_id
    WHERE k.purpose = 'account' AND c.status = 'deleted' AND k.id NOT IN (SELECT consent_id FROM consent_withdrawals);
