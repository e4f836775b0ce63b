-- The audit log: the same as on Postgres.
CREATE TABLE audit_log (
    -- No id is used twice, also after the entry was deleted.
    id              integer PRIMARY KEY AUTOINCREMENT,
    at              text NOT NULL,
    tenant          text NOT NULL,
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
) STRICT;
CREATE INDEX audit_log_by_tenant ON audit_log (tenant, id);
CREATE INDEX audit_log_by_time ON audit_log (at);
