(CASE WHEN NOT pg_is_in_recovery() THEN (
    SELECT system_identifier || ':' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) FROM pg_control_system()
) END)
