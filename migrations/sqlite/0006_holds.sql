-- Which uploads workers have batches of, and since when the batches of an upload are missing.
CREATE TABLE upload_holds (
    upload_id       text PRIMARY KEY,
    -- The last time when a worker had batches of the upload in hand.
    held_at         text,
    missing_since   text
) STRICT;
