"""DATABASE_URL=postgresql+psycopg://… alembic upgrade head"""

import os

from alembic import context
from sqlalchemy import create_engine, NullPool

# One connection, used once: a pool has no work here.
engine = create_engine(os.environ["DATABASE_URL"], poolclass=NullPool)

with engine.connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
