CASE WHEN stored.record IS NULL THEN stored.write_id IS NULL
ELSE (
    SELECT coalesce(
        old ->> 'write_id' = stored.write_id
        AND json_typeof(old -> 'version') = 'number'
        AND (old ->> 'version')::numeric <= (new ->> 'version')::numeric, false)
    -- `json` can contain the escape of a null character, and the operators refuse to read such a value.
    FROM (SELECT
        replace(stored.record::text, chr(92) || 'u0000', chr(92) || 'u0020')::json AS old,
        replace($2, chr(92) || 'u0000', chr(92) || 'u0020')::json AS new
    ) AS records
)
END
