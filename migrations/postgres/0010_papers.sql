-- What people agreed to about payments: guardianships, supervisions, approvals, one-time codes, mandates. Each is kept whole as
-- JSON, as the program's own types read it; the columns beside it are for finding it, and follow from it.

CREATE TABLE papers (
    kind       word NOT NULL CHECK (kind IN ('guardianship', 'supervision', 'approval', 'code', 'mandate', 'account')),
    id         word NOT NULL,
    owner      word NOT NULL REFERENCES customers (id), -- whose payments it is about
    about      word NOT NULL, -- what else: the guardian, the supervisor, the request, the payee and currency
    open       boolean NOT NULL, -- it still means something
    due_at     bigint, -- when somebody has to look at it
    version    bigint NOT NULL CHECK (version >= 0),
    body       word NOT NULL,
    created_at bigint NOT NULL,
    PRIMARY KEY (kind, id)
);
CREATE INDEX papers_by_owner ON papers (owner, kind) WHERE open;
CREATE INDEX papers_by_about ON papers (about, kind) WHERE open;
CREATE INDEX codes_by_request ON papers (about, created_at) WHERE kind = 'code';
CREATE INDEX papers_due ON papers (kind, due_at) WHERE due_at IS NOT NULL;
-- Of two that ask at once one is first: one approval of a request, one mandate for a payee and currency, one live code of a request.
CREATE UNIQUE INDEX one_open_paper ON papers (kind, owner, about) WHERE open;
CREATE TRIGGER papers_step_by_step BEFORE UPDATE ON papers FOR EACH ROW
    WHEN (new.version <> old.version + 1 OR new.kind <> old.kind OR new.id <> old.id OR new.owner <> old.owner
          OR (NOT old.open AND new.open))
    EXECUTE FUNCTION refuse('a paper changes a version at a time, and one that is closed stays so');
CREATE TRIGGER papers_never_go BEFORE DELETE ON papers FOR EACH ROW EXECUTE FUNCTION refuse('papers are never deleted');
CREATE TRIGGER papers_never_emptied BEFORE TRUNCATE ON papers EXECUTE FUNCTION refuse('papers are never deleted');

-- What somebody paid of late.
CREATE INDEX intents_by_customer ON intents (customer_id, created_at);

-- One-time codes on their way to the payer, sealed; what was delivered or ran out is wiped.
CREATE TABLE code_deliveries (
    code_id     word PRIMARY KEY,
    customer_id word NOT NULL REFERENCES customers (id),
    sealed      bytea NOT NULL, -- empty once wiped
    expires_at  bigint NOT NULL,
    tries       bigint NOT NULL DEFAULT 0,
    next_try_at bigint -- NULL: done with
);
CREATE INDEX code_deliveries_waiting ON code_deliveries (next_try_at) WHERE next_try_at IS NOT NULL;
