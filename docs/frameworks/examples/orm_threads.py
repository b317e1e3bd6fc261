"""Sessions in threads: one with a block, one per thread."""

import os

from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    mapped_column,
    scoped_session,
    sessionmaker,
)

from sqla_smartpool import SmartPool

engine = create_engine(
    os.environ["DATABASE_URL"],
    poolclass=SmartPool,
    min_size=2,
    max_size=5,
)
new_session = sessionmaker(engine)
current = scoped_session(new_session)


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str]


def place(customer):
    with new_session.begin() as session:  # commits, or rolls back
        session.add(Order(customer=customer))


def place_scoped(customer):
    try:
        current.add(Order(customer=customer))
        current.commit()
    finally:
        current.remove()  # or the thread keeps its session


def count(customer):
    query = select(func.count(Order.id)).where(Order.customer == customer)
    with new_session() as session:
        return session.scalar(query)
