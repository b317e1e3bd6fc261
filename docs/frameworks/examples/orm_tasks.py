"""Sessions in tasks: one with a block, one per task."""

import asyncio
import os

from orm_threads import Order
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import (
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)

from sqla_smartpool import AsyncSmartPool

engine = create_async_engine(
    os.environ["ASYNC_DATABASE_URL"],
    poolclass=AsyncSmartPool,
    min_size=2,
    max_size=5,
)
new_session = async_sessionmaker(engine, expire_on_commit=False)
current = async_scoped_session(new_session, scopefunc=asyncio.current_task)


async def place(customer):
    async with new_session.begin() as session:  # commits, or rolls back
        session.add(Order(customer=customer))


async def place_scoped(customer):
    try:
        current.add(Order(customer=customer))
        await current.commit()
    finally:
        await current.remove()


async def count(customer):
    query = select(func.count(Order.id)).where(Order.customer == customer)
    async with new_session() as session:
        return await session.scalar(query)
