-- The keys of requests that take effect once (`Idempotency-Key`): the same as on Postgres.
CREATE TABLE idempotency_keys (
    tenant          text NOT NULL,
    -- The method and the path, such as 'POST /uploads'.
    route           text NOT NULL,
    -- The API key, the token or the subject of the JWT that sent the request, or '-'.
    sender          text NOT NULL,
    key             text NOT NULL,
    -- SHA-256 of what the client wants, without the content of a file.
    fingerprint     blob NOT NULL,
    -- The upload of the request. Its record says whether the request is running, has succeeded or
    -- has failed.
    upload_id       text,
    -- The body of the answer without secrets, for requests that create no upload.
    answer          text,
    created_at      text NOT NULL,
    PRIMARY KEY (tenant, route, sender, key),
    CHECK ((upload_id IS NULL) <> (answer IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_keys_by_time ON idempotency_keys (created_at);
