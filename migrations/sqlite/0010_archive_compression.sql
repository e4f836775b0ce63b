-- Compressed objects in the archive: the same as on Postgres.

-- The name of the compression, which determines the key of the object. NULL: not compressed.
ALTER TABLE batches ADD COLUMN archive_compression text;
-- The size of the object without compression. NULL: the same as `archive_bytes`.
ALTER TABLE batches ADD COLUMN object_bytes integer;
