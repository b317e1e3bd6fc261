"""Books, with asyncpg's pool."""

import asyncio
import os

import asyncpg


async def prepare(connection):
    await connection.execute("SET application_name = 'books'")


async def main():
    pool = await asyncpg.create_pool(
        os.environ["DATABASE_URL"],
        min_size=2,
        max_size=4,
        max_inactive_connection_lifetime=300,
        setup=prepare,
    )

    async def add(title):
        await pool.execute("INSERT INTO book VALUES ($1)", title)

    async def count():
        return await pool.fetchval("SELECT count(*) FROM book")

    await pool.execute("CREATE TABLE book (title text)")
    await asyncio.gather(*(add(f"Volume {number}") for number in range(8)))
    print("books:", await count())
    try:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("DELETE FROM book")
            raise KeyError("not all of them")
    except KeyError:
        print("rolled back:", await count())
    async with pool.acquire() as connection:
        await connection.copy_records_to_table(
            "book", records=[("Volume 8",), ("Volume 9",)]
        )
        name = await connection.fetchval("SHOW application_name")
    print("copied:", await count(), "by", name)
    taken = [await pool.acquire() for _ in range(4)]
    try:
        await pool.acquire(timeout=0.1)
    except asyncio.TimeoutError:
        print("all in use:", pool.get_size(), "idle:", pool.get_idle_size())
    for connection in taken:
        await pool.release(connection)
    await pool.expire_connections()
    await pool.close()


asyncio.run(main())
