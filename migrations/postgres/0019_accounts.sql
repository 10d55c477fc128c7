-- Main accounts and purchases are papers, too.

ALTER TABLE papers DROP CONSTRAINT papers_kind_check;
ALTER TABLE papers ADD CONSTRAINT papers_kind_check
    CHECK (kind IN ('guardianship', 'supervision', 'approval', 'code', 'mandate', 'main_account', 'account', 'purchase'));
