-- The id of this installation, which its messages carry. Two installations that share a queue can
-- then tell their messages apart.
CREATE TABLE installation (
    single          integer PRIMARY KEY CHECK (single = 1),
    id              text NOT NULL
) STRICT;
INSERT INTO installation VALUES (1, lower(hex(randomblob(16))));
