"""DATABASE_URL=postgresql+psycopg://… uvicorn sqlmodel_app:app"""

from contextlib import asynccontextmanager
import os

from fastapi import FastAPI
from sqlmodel import create_engine, Field, Session, SQLModel, text

from sqla_smartpool import SmartPool


class Order(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    customer: str


engine = create_engine(
    os.environ["DATABASE_URL"],
    poolclass=SmartPool,
    min_size=2,
    max_size=5,
)
DOUBLE = text("SELECT 2 * :n FROM pg_sleep(0.01)")  # takes its time


@asynccontextmanager
async def lifespan(app):
    with engine.pool:  # start() before the first request, stop() at last
        SQLModel.metadata.create_all(engine)
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/orders")
def place(order: Order) -> Order:
    with Session(engine) as session:
        session.add(order)
        session.commit()
        session.refresh(order)
        return order


@app.get("/double/{number}")
def double(number: int) -> int:
    with Session(engine) as session:
        return session.scalar(DOUBLE, {"n": number})


@app.get("/pool")
def pool() -> dict:
    return engine.pool.stats().as_dict()
