-- Compressed objects in the archive.

-- Later statements on `batches` wait behind this migration, so it fails rather than wait for a long
-- query. The program then ends with an error, and its supervisor starts it again.
SET LOCAL lock_timeout = '5s';

-- `archive_bytes` and `archive_crc32` are those of the object as it is stored. Both new columns are
-- NULL for an object without compression, also in the entries of previous versions.
-- `archive_compression`: the name of the compression, which determines the key of the object.
-- `object_bytes`: the size of the object without compression.
ALTER TABLE batches
    ADD COLUMN archive_compression text,
    ADD COLUMN object_bytes        bigint;
