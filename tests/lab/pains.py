"""The mistakes that connection pools are known to have made.

Each has a name, by which at least one test says that it guards against it:
``@pytest.mark.pain("lost wake-up")``.  In brackets: where it was met.
"""

from __future__ import annotations

#: by name
PAINS = {
    "lost wake-up": "A connect fails or is cancelled, and the caller who is"
    " next in the queue is not told of the room (golang/go#10886).",
    "swallowed hand-off": "A caller is cancelled just as it is served: the"
    " connection is lost with it, or the cancel is (psycopg#509, #1275,"
    " #1345; ClickHouse/clickhouse-go#1759; knex#1694).",
    "check that always fails": "A health check that raises each time is tried"
    " over and over, without a pause (psycopg#709).",
    "check that leaves a trace": "A health check leaves a transaction open, or"
    " a setting changed (psycopg#144, python-oracledb#558).",
    "only Exception caught": "The books are not put right after a"
    " BaseException, such as GreenletExit (psycopg#1208).",
    "full for ever": "What upkeep has closed goes on being counted, until"
    " there is no room left (mperham/connection_pool#188).",
    "closed in use": "Upkeep closes a connection that somebody is using"
    " (Dispatcharr#1420).",
    "floor closed and reopened": "Idle connections of the floor are closed,"
    " only to be opened again (bb8#123, HikariCP#379).",
    "floor not refilled": "The floor is kept up when idle ones time out, and"
    " not when connections are lost otherwise (node-postgres#3696,"
    " asyncpg#1268).",
    "never used, never closed": "Idle time is counted from the first return,"
    " so that what nobody has ever used stays (asyncpg#389).",
    "no lifetime under load": "While every connection is in use, none is"
    " found old enough to be replaced (rails#58851, sqlx#3051).",
    "jitter redrawn": "Chance decides anew at each look how old a connection"
    " may become, so that all end early (pgx#1437).",
    "storm while down": "A database that is down, or refuses the password, is"
    " asked without restraint until the account is locked (HikariCP#379,"
    " #857).",
    "more than the ceiling": "While connections are replaced, or callers"
    " cancelled, there are more than allowed (pgx#2425).",
    "lock across I/O": "One who waits for the network keeps everybody from"
    " the pool (hyperswitch#13521).",
    "upkeep dies": "An error, or a timer after a day, ends the background"
    " work, and nothing tells (psycopg#1419).",
    "change unnoticed": "A new size or age limit counts only after the sleep"
    " that upkeep has begun (golang/go#45993).",
    "slow exit": "The process hangs or spins at its end, over what works in"
    " the background (psycopg#954, Cortex#398).",
    "never collected": "The background work keeps a pool alive that nobody"
    " else knows any more (sqlx#2375).",
    "child collects": "After a fork the child's garbage collector says goodbye"
    " over the parent's sessions (airflow#56879).",
    "fork with a lock held": "A fork copies a lock that another thread holds,"
    " and nobody in the child will let go of it.",
    "second event loop": "A pool meets another event loop, and waits for what"
    " belongs to the first (psycopg#737).",
    "clock jump": "The clock is set, or the machine sleeps, and connections"
    " are dropped or kept wrongly (HikariCP#2297).",
    "unfair queue": "Who asks again at once overtakes those who wait"
    " (sqlalchemy#7679, sqlx#453).",
    "return after the end": "A connection comes back after the pool was"
    " closed, and stays open (clickhouse-go#1687).",
    "counts without a lock": "Threads that add to the same number lose each"
    " other's additions (sqlalchemy#13410).",
}
