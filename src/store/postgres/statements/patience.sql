-- As for a lease.
(SELECT set_config('lock_timeout', '{milliseconds}', true)) AS settings
