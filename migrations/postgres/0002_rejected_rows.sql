-- Rows that were not stored, with their reasons; and what else is counted or found out about a file.

ALTER TABLE uploads
    ADD COLUMN rows_rejected bigint NOT NULL DEFAULT 0,
    ADD COLUMN blank_lines   bigint,
    ADD COLUMN duplicate_of  uuid;
ALTER TABLE upload_leases
    ADD COLUMN rows_rejected bigint NOT NULL DEFAULT 0;

-- The same file sent before.
CREATE INDEX uploads_by_content ON uploads (sha256) WHERE status IN ('completed', 'partial');

-- They stay when the upload's rows are removed: they are why it failed.
CREATE TABLE rejected_rows (
    upload_id       uuid NOT NULL,
    row_number      bigint NOT NULL,
    line            bigint NOT NULL,
    byte_offset     bigint NOT NULL,
    column_name     text,
    code            text NOT NULL,
    message         text NOT NULL,
    -- The record as it came, where it does not fit the columns; otherwise its cells.
    raw             text,
    fields          jsonb,
    PRIMARY KEY (upload_id, row_number)
);
