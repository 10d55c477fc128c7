-- App sessions are papers, too, and the only ones that a clock erases once they ended: they hold no consent and no debt.

ALTER TABLE papers DROP CONSTRAINT papers_kind_check;
ALTER TABLE papers ADD CONSTRAINT papers_kind_check
    CHECK (kind IN ('guardianship', 'supervision', 'approval', 'code', 'mandate', 'main_account', 'account', 'purchase', 'app_session'));
DROP TRIGGER papers_never_go ON papers;
CREATE TRIGGER papers_never_go BEFORE DELETE ON papers FOR EACH ROW WHEN (old.kind <> 'app_session' OR old.open)
    EXECUTE FUNCTION refuse('papers are never deleted');
