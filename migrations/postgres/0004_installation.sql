-- The id of this installation, which its messages carry. Two installations that share a broker can
-- then tell their messages apart.
CREATE TABLE installation (
    single          boolean PRIMARY KEY DEFAULT true CHECK (single),
    id              uuid NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO installation DEFAULT VALUES;
