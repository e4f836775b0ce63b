-- The keys of requests that take effect once (`Idempotency-Key`). The previous version does not
-- know this table and ignores the header, so replace all APIs before a client relies on it.
CREATE TABLE idempotency_keys (
    tenant          text COLLATE "C" NOT NULL,
    -- The method and the path, such as 'POST /uploads'.
    route           text COLLATE "C" NOT NULL,
    -- The API key, the token or the subject of the JWT that sent the request, or '-'.
    sender          text COLLATE "C" NOT NULL,
    key             text COLLATE "C" NOT NULL,
    -- SHA-256 of what the client wants, without the content of a file.
    fingerprint     bytea NOT NULL,
    -- The upload of the request. Its record says whether the request is running, has succeeded or
    -- has failed. There is no foreign key, so an operator may delete the record of an upload.
    upload_id       uuid,
    -- The body of the answer without secrets, for requests that create no upload.
    answer          text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, route, sender, key),
    CHECK ((upload_id IS NULL) <> (answer IS NULL))
);
CREATE INDEX idempotency_keys_by_time ON idempotency_keys (created_at);
