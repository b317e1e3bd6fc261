"""What the workers say, in the servers' dialects."""

from __future__ import annotations

from typing import Any
from typing import NamedTuple


class Words(NamedTuple):
    #: what the one before may have left; as ``clean`` when nothing is
    examine: str
    clean: tuple[Any, ...]
    echo: str
    sleep: str
    #: settings that end with the transaction in which they are changed
    settings: tuple[str, ...]
    insert: str = "INSERT INTO soak (token, fate) VALUES (:token, :fate)"
    nonsense: str = "SELECT nonsense"
    rows: str = (
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL"
        " SELECT i + 1 FROM n WHERE i < 300) SELECT i FROM n"
    )


WORDS = {
    "PostgreSQL": Words(
        examine="SELECT current_setting('soak.holder', true),"
        " CAST(pg_current_xact_id_if_assigned() AS text),"
        " current_setting('transaction_isolation'),"
        " current_setting('search_path'),"
        # a transaction is begun by a statement of its own, or not at all:
        # the driver has been left in its AUTOCOMMIT mode
        " now() = statement_timestamp()",
        clean=(None, None, "read committed", '"$user", public', None),
        echo="SELECT CAST(:token AS text)",
        sleep="SELECT pg_sleep(:seconds)",
        settings=(
            "SELECT set_config('soak.holder', :token, true)",
            "SELECT set_config('search_path', 'pg_temp', false),"
            " CAST(:token AS text)",
        ),
    ),
    "MariaDB": Words(
        examine="SELECT @@in_transaction, @@autocommit, @@tx_isolation",
        clean=(None, None, "REPEATABLE-READ"),
        echo="SELECT CAST(:token AS CHAR)",
        sleep="SELECT SLEEP(:seconds)",
        settings=(
            # has no such settings; this opens a transaction as well
            "SELECT COUNT(*) FROM soak WHERE token = :token",
        ),
    ),
}
