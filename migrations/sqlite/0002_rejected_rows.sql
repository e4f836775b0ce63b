-- Rows that were not stored, with their reasons; and what else is counted or found out about a file: the same as on Postgres.

ALTER TABLE uploads ADD COLUMN rows_rejected integer NOT NULL DEFAULT 0;
ALTER TABLE uploads ADD COLUMN blank_lines integer;
ALTER TABLE uploads ADD COLUMN duplicate_of text;
ALTER TABLE upload_leases ADD COLUMN rows_rejected integer NOT NULL DEFAULT 0;

-- The same file sent before.
CREATE INDEX uploads_by_content ON uploads (sha256) WHERE status IN ('completed', 'partial');

-- They stay when the upload's rows are removed: they are why it failed. `id` is as in `rows`; `fields` a list of texts in JSON.
CREATE TABLE rejected_rows (
    id              integer PRIMARY KEY,
    upload          integer GENERATED ALWAYS AS (id >> 36) VIRTUAL,
    row_number      integer GENERATED ALWAYS AS (id & 0xfffffffff) VIRTUAL,
    line            integer NOT NULL,
    byte_offset     integer NOT NULL,
    column_name     text,
    code            text NOT NULL,
    message         text NOT NULL,
    -- The record as it came, where it does not fit the columns; otherwise its cells.
    raw             text,
    fields          text
) STRICT;
