-- Takes the lock, or marks the row as waited for if the waiter listens ($4). Returns whether it was taken, the fence, and the
-- milliseconds that are left of the lease. `statement_timestamp` is the same in all places, and no later than the present.
WITH asked AS (
    INSERT INTO {table} AS stored (name, lease_owner, lease_until, lease, fence)
    SELECT $1, $2, statement_timestamp() + $3 * interval '1 ms', $3 * interval '1 ms', 1
    FROM {lease}
    -- Without a change, not even the row is locked: that would be a write for each of many waiters.
    WHERE NOT EXISTS (SELECT FROM {table} AS stored WHERE stored.name = $1 AND NOT {changes})
    ON CONFLICT (name) DO UPDATE SET
        lease_owner = CASE WHEN {free} THEN $2 ELSE stored.lease_owner END,
        -- If the clock was set back, a lease lasts at most its full length from now.
        lease_until = CASE WHEN {free} THEN excluded.lease_until
            ELSE least(stored.lease_until, statement_timestamp() + stored.lease) END,
        lease = CASE WHEN {free} THEN excluded.lease ELSE stored.lease END,
        fence = CASE WHEN {free} THEN stored.fence + 1 ELSE stored.fence END,
        is_waited = NOT {free} AND (stored.is_waited OR $4)
    WHERE {changes}
    RETURNING lease_owner = $2 AS is_taken, fence, lease_until
), answer AS (
    SELECT is_taken, fence, lease_until FROM asked
    UNION ALL
    SELECT false, fence, lease_until FROM {table} WHERE name = $1 AND NOT EXISTS (SELECT FROM asked)
)
SELECT is_taken, fence, coalesce(extract(epoch FROM lease_until - statement_timestamp()) * 1000, 0)::float8 FROM answer
