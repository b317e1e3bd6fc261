"""PostgreSQL and MariaDB servers which a test can start, freeze and kill.

Each is a child of the test process, listens on 127.0.0.1 and on a unix
socket, lives in a temporary folder and is gone with the test process, in
whatever way that ends. Take them from the fixtures in
:mod:`tests.lab.fixtures`, or make one of your own::

    with PostgreSQL(max_connections=10) as server:
        engine = create_engine(server.url("postgresql+psycopg"))

"""

from tests.lab.mariadb import MariaDB
from tests.lab.postgresql import PostgreSQL
from tests.lab.server import Server

__all__ = ["MariaDB", "PostgreSQL", "Server"]
