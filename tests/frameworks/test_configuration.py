"""What the pages say of configuration: no database is asked."""

from __future__ import annotations

import runpy
from typing import Any

import flask
from flask_sqlalchemy import SQLAlchemy
import pytest
from sqlalchemy import engine_from_config
from sqlalchemy import NullPool
from sqlalchemy.exc import ArgumentError
from sqlalchemy.exc import NoSuchModuleError

from sqla_smartpool import SmartPool
from tests.frameworks.serving import EXAMPLES

URL = "postgresql+psycopg://user@host/db"
PLUGIN = f"{URL}?plugin=smartpool"


def engine(url: str, *, poolclass: Any = None, **options: str) -> Any:
    section = {f"sqlalchemy.{name}": value for name, value in options.items()}
    return engine_from_config(
        {"sqlalchemy.url": url, **section}, poolclass=poolclass
    )


def test_an_ini_file_is_text_and_the_pool_has_numbers() -> None:
    made = runpy.run_path(str(EXAMPLES / "ini_engine.py"))["engine"]
    assert type(made.pool) is SmartPool
    settings = made.pool.settings
    assert (settings.min_size, settings.max_size) == (2, 5)
    assert (settings.timeout, settings.ping_after) == (10.0, 7.5)
    assert settings.max_lifetime is None
    assert settings.pre_ping is False
    assert made.url.render_as_string() == URL


def test_a_wrong_word_in_an_ini_file_is_refused_by_name() -> None:
    with pytest.raises(ArgumentError, match="min_size='two': must be a whole"):
        engine(PLUGIN, min_size="two")


def test_sqlalchemy_reads_neither_pool_classes_nor_plugins_as_text() -> None:
    with pytest.raises(AttributeError):
        engine(URL, poolclass="sqla_smartpool.SmartPool")
    with pytest.raises(NoSuchModuleError):
        engine(URL, plugins="smartpool")
    with pytest.raises(ValueError, match="2.5"):
        engine(PLUGIN, pool_timeout="2.5")


def test_a_migration_has_its_null_pool_with_the_url_of_the_application() -> (
    None
):
    url = f"{PLUGIN}&min_size=2&max_size=5"
    assert type(engine(url, poolclass=NullPool).pool) is NullPool
    with pytest.raises(TypeError, match="min_size"):
        engine(PLUGIN, poolclass=NullPool, min_size="2")


def flask_engines(url: str, **options: Any) -> Any:
    app = flask.Flask("shop")
    app.config["SQLALCHEMY_DATABASE_URI"] = url
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {
        "poolclass": SmartPool,
        **options,
    }
    reports = {"url": URL, "poolclass": SmartPool, "max_size": 3}
    app.config["SQLALCHEMY_BINDS"] = {"reports": reports, "plain": URL}
    with app.app_context():
        return SQLAlchemy(app).engines


def test_flask_sqlalchemy_has_options_for_each_database() -> None:
    engines = flask_engines(URL, max_size=5)
    assert engines[None].pool.settings.max_size == 5
    assert engines["reports"].pool.settings.max_size == 3
    assert not isinstance(engines["plain"].pool, SmartPool)


def test_flask_sqlalchemy_sets_the_lifetime_with_mysql() -> None:
    url = "mysql+pymysql://user@host/db"
    assert flask_engines(url)[None].pool.settings.max_lifetime == 7200
    shorter = flask_engines(url, pool_recycle=600)
    assert shorter[None].pool.settings.max_lifetime == 600
    with pytest.raises(ArgumentError, match="one setting under two names"):
        flask_engines(url, max_lifetime=600)


def test_flask_sqlalchemy_replaces_the_pool_of_sqlite_in_memory() -> None:
    with pytest.raises(TypeError, match="Invalid argument.*'min_size'"):
        flask_engines("sqlite://", min_size=2)
