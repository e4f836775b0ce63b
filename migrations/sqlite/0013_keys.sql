-- API keys: the same as on Postgres.
CREATE TABLE api_keys (
    -- The public part of the key.
    id              text PRIMARY KEY,
    -- The SHA-256 of the key. Carga does not store the key.
    digest          blob NOT NULL,
    tenant          text NOT NULL,
    -- The names of the scopes, separated by blanks.
    scopes          text NOT NULL,
    -- The only dataset to which the holder may send files. NULL: no such limit.
    dataset         text,
    -- A name for people.
    name            text,
    created_at      text NOT NULL,
    -- The key with which this one was made. NULL: made without a key of this table.
    created_by      text,
    expires_at      text,
    revoked_at      text
) STRICT, WITHOUT ROWID;
CREATE INDEX api_keys_by_time ON api_keys (created_at, id);
CREATE INDEX api_keys_by_tenant ON api_keys (tenant, created_at, id);
