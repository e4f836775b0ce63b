-- One page of the rows of an upload. `$1` to `$4`: number of the upload, first and last row number,
-- count of rows. The system test `landing` runs EXPLAIN on it.
SELECT row_number, fields FROM landing
WHERE upload = $1 AND row_number BETWEEN $2 AND $3
ORDER BY row_number LIMIT $4
