-- App sessions are papers, too, and the only ones that a clock erases once they ended: they hold no consent and no debt. SQLite can't change
-- a CHECK, so the table is built anew; what it holds stays as it is.

CREATE TABLE papers_of_now (
    kind       TEXT NOT NULL CHECK (kind IN
               ('guardianship', 'supervision', 'approval', 'code', 'mandate', 'main_account', 'account', 'purchase', 'app_session')),
    id         TEXT NOT NULL,
    owner      TEXT NOT NULL REFERENCES customers (id), -- whose payments it is about
    about      TEXT NOT NULL, -- what else: the guardian, the supervisor, the request, the payee and currency
    open       INTEGER NOT NULL CHECK (open IN (0, 1)), -- it still means something
    due_at     INTEGER, -- when somebody has to look at it
    version    INTEGER NOT NULL CHECK (version >= 0),
    body       TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;
INSERT INTO papers_of_now (kind, id, owner, about, open, due_at, version, body, created_at)
    SELECT kind, id, owner, about, open, due_at, version, body, created_at FROM papers;
DROP TABLE papers;
ALTER TABLE papers_of_now RENAME TO papers;
CREATE INDEX papers_by_owner ON papers (owner, kind) WHERE open = 1;
CREATE INDEX papers_by_about ON papers (about, kind) WHERE open = 1;
CREATE INDEX papers_of_anybody ON papers (owner, kind, id);
CREATE INDEX papers_about_anybody ON papers (about, kind, id);
CREATE INDEX codes_by_request ON papers (about, created_at) WHERE kind = 'code';
CREATE INDEX papers_due ON papers (kind, due_at) WHERE due_at IS NOT NULL;
-- Of two that ask at once one is first: one approval of a request, one mandate for a payee and currency, one live code of a request.
CREATE UNIQUE INDEX one_open_paper ON papers (kind, owner, about) WHERE open = 1;
CREATE TRIGGER papers_step_by_step BEFORE UPDATE ON papers
WHEN new.version <> old.version + 1 OR new.kind <> old.kind OR new.id <> old.id OR new.owner <> old.owner OR (old.open = 0 AND new.open = 1)
BEGIN SELECT RAISE(ABORT, 'a paper changes a version at a time, and one that is closed stays so'); END;
CREATE TRIGGER papers_never_go BEFORE DELETE ON papers WHEN old.kind <> 'app_session' OR old.open = 1
BEGIN SELECT RAISE(ABORT, 'papers are never deleted'); END;
