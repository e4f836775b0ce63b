-- Datasets: tables whose columns have declared types. Beside the record of dataset `sales`, the
-- store keeps the table "datasets_sales" and the view "datasets_sales_rows". They come and go with
-- the record.
CREATE TABLE datasets (
    name            text PRIMARY KEY,
    -- The definition as JSON.
    definition      text NOT NULL,
    created_at      text NOT NULL,
    updated_at      text NOT NULL
) STRICT, WITHOUT ROWID;

-- The dataset of an upload as JSON: its name, and its columns at the time of the upload. The rows
-- of such an upload are in the table of the dataset, and not in `rows`.
ALTER TABLE uploads ADD COLUMN dataset text;
CREATE INDEX uploads_by_dataset ON uploads (dataset ->> 'name', created_at DESC, id DESC)
    WHERE dataset IS NOT NULL;
