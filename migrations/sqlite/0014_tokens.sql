-- Tokens with fewer rights than a key: the same as on Postgres.

-- The secret that signs tokens, in one row. Without it, all tokens end: delete the row and restart
-- `carga serve`.
CREATE TABLE token_secrets (
    number          integer PRIMARY KEY CHECK (number = 1),
    secret          blob NOT NULL CHECK (length(secret) = 32)
) STRICT;

-- How many uploads were sent with each token that limits their number.
CREATE TABLE token_uses (
    token_id        text PRIMARY KEY,
    uploads         integer NOT NULL,
    -- The end of the token. The row is removed an hour later.
    expires_at      text NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX token_uses_by_end ON token_uses (expires_at);
