-- The audit log: who has changed what. The previous version makes changes without an entry, so
-- replace it before you rely on the log.
CREATE TABLE audit_log (
    -- Ascends. A change holds an advisory lock from before it has its id until its commit, and
    -- `GET /audit` waits for it, so no entry appears behind one that was listed.
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    tenant          text COLLATE "C" NOT NULL,
    -- The id of a key, `admin key`, `command line`, or `nobody`.
    actor           text NOT NULL,
    -- The kind of the change, such as `upload.cancel`.
    action          text NOT NULL,
    -- The public id of an upload, the name of a dataset, the id of a key, or a log filter.
    object          text NOT NULL,
    -- The address of the client. NULL: a command.
    address         text,
    -- The id of the request. NULL: a command.
    request_id      text
);
CREATE INDEX audit_log_by_tenant ON audit_log (tenant, id);
CREATE INDEX audit_log_by_time ON audit_log (at);
