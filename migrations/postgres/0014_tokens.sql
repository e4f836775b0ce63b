-- Tokens with fewer rights than a key. A token itself is in no table.

-- The secret that signs tokens, in one row. Without it, all tokens end: delete the row and restart
-- the APIs.
CREATE TABLE token_secrets (
    number          smallint PRIMARY KEY CHECK (number = 1),
    secret          bytea NOT NULL CHECK (octet_length(secret) = 32)
);

-- How many uploads were sent with each token that limits their number.
CREATE TABLE token_uses (
    token_id        text COLLATE "C" PRIMARY KEY,
    uploads         bigint NOT NULL,
    -- The end of the token. The row is removed an hour later.
    expires_at      timestamptz NOT NULL
);
CREATE INDEX token_uses_by_end ON token_uses (expires_at);
