"""An engine of an ini file."""

from configparser import ConfigParser
from pathlib import Path

from sqlalchemy import engine_from_config

config = ConfigParser()
config.read(Path(__file__).with_name("shop.ini"))
engine = engine_from_config(config["database"], prefix="sqlalchemy.")
