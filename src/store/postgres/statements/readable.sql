CASE WHEN stored.record IS NULL THEN stored.write_id IS NULL
ELSE coalesce(
    stored.record ->> 'write_id' = stored.write_id
    AND json_typeof(stored.record -> 'version') = 'number'
    AND (stored.record ->> 'version')::numeric <= ($2::json ->> 'version')::numeric, false)
END
