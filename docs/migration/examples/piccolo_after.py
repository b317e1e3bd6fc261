"""Books, with SQLAlchemy's ORM and AsyncSmartPool."""

import asyncio
import os

from sqlalchemy import delete
from sqlalchemy import func
from sqlalchemy import make_url
from sqlalchemy import select
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.orm import Mapped
from sqlalchemy.orm import mapped_column

from sqla_smartpool import AsyncSmartPool

url = make_url(os.environ["DATABASE_URL"])
engine = create_async_engine(
    url.set(drivername="postgresql+asyncpg"),
    poolclass=AsyncSmartPool,
    min_size=2,
    max_size=4,
)
Session = async_sessionmaker(engine)


class Base(DeclarativeBase):
    pass


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]


async def save(book):
    async with Session.begin() as session:
        session.add(book)


async def count():
    async with Session() as session:
        return await session.scalar(select(func.count()).select_from(Book))


async def main():
    await engine.pool.start()
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    await asyncio.gather(
        *(save(Book(title=f"Volume {number}")) for number in range(8))
    )
    print("books:", await count())
    try:
        async with Session.begin() as session:
            await session.execute(delete(Book))
            raise KeyError("not all of them")
    except KeyError:
        print("rolled back:", await count())
    async with Session() as session:
        result = await session.execute(
            select(Book.title).order_by(Book.title).limit(1)
        )
        print("first:", dict(result.mappings().one()))
    print("at most:", engine.pool.stats().pool_max)
    await engine.pool.stop()


asyncio.run(main())
