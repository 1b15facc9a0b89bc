-- A client that has given up must not leave a session behind that waits for the row.
(SELECT set_config('lock_timeout', '{milliseconds}', true)) AS patience
