-- API keys. The previous version does not know this table and lets every request in, so replace it
-- before you rely on keys.
CREATE TABLE api_keys (
    -- The public part of the key. Ids and tenants are compared by their bytes, as in SQLite.
    id              text COLLATE "C" PRIMARY KEY,
    -- The SHA-256 of the key. Carga does not store the key.
    digest          bytea NOT NULL,
    tenant          text COLLATE "C" NOT NULL,
    -- The names of the scopes, separated by blanks.
    scopes          text NOT NULL,
    -- The only dataset to which the holder may send files. NULL: no such limit.
    dataset         text,
    -- A name for people.
    name            text,
    created_at      timestamptz NOT NULL,
    -- The key with which this one was made. NULL: made without a key of this table.
    created_by      text,
    expires_at      timestamptz,
    revoked_at      timestamptz
);
CREATE INDEX api_keys_by_time ON api_keys (created_at, id);
CREATE INDEX api_keys_by_tenant ON api_keys (tenant, created_at, id);
