-- Replaces the record with the write id $4, or nothing if that is null. Returns whether it was saved, and whether the stored
-- record is unreadable.
WITH saved AS (
    INSERT INTO {table} AS stored (name, record, write_id, run)
    SELECT $1, $2::json, $3, {run}
    FROM {patience}
    WHERE $4::text IS NULL OR EXISTS (SELECT FROM {table} WHERE name = $1)
    ON CONFLICT (name) DO UPDATE
    SET record = excluded.record, write_id = excluded.write_id, run = excluded.run
    WHERE {readable} AND (stored.write_id IS NOT DISTINCT FROM $4 OR stored.write_id = $3)
    RETURNING true
)
SELECT
    EXISTS (SELECT FROM saved),
    EXISTS (SELECT FROM {table} AS stored WHERE stored.name = $1 AND NOT {readable}),
    -- A confirmed save survives a crash, even if the default of the role or the database is `off`.
    CASE WHEN current_setting('synchronous_commit') = 'off' THEN set_config('synchronous_commit', 'local', true) END
