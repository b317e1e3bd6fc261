"""Checks to run before a change goes in: ``nox``, or ``nox -s <session>``.

What follows ``--`` goes to the tool: ``nox -s tests-3.12 -- -n 4 -k drain``.
"""

import configparser
import os
from pathlib import Path
import re
import shutil
import subprocess
import tempfile

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["lint", "tests"]
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False

PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]


def lowest_sqlalchemy() -> str:
    """Return the lowest version that setup.cfg allows, such as "2.0.53"."""
    config = configparser.ConfigParser()
    config.read(Path(__file__).with_name("setup.cfg"), encoding="utf-8")
    requires = config["options"]["install_requires"]
    found = re.search(r"^sqlalchemy\s*>=\s*([\d.]+)", requires, re.M | re.I)
    assert found, "setup.cfg gives no lower bound for SQLAlchemy"
    return found[1]


SQLALCHEMYS = {
    "lowest": f"sqlalchemy=={lowest_sqlalchemy()}",
    "2.0": "sqlalchemy>=2.0,<2.1",
    "2.1": "sqlalchemy>=2.1",
}

if shutil.which("pyenv"):
    # pyenv answers only for the versions that are selected: select all of
    # ours, behind what the user has selected.
    current, installed = (
        subprocess.run(
            ["pyenv", *command], capture_output=True, text=True
        ).stdout.split()
        for command in (["version-name"], ["versions", "--bare"])
    )
    os.environ["PYENV_VERSION"] = ":".join(
        current
        + [
            version
            for version in installed
            if version.rpartition(".")[0] in PYTHONS
        ]
    )


@nox.session(python=PYTHONS)
@nox.parametrize(
    "sqlalchemy",
    [nox.param(spec, id=name) for name, spec in SQLALCHEMYS.items()],
)
def tests(session: nox.Session, sqlalchemy: str) -> None:
    """Run the tests with one SQLAlchemy on one Python."""
    if session.python == "3.10" and sqlalchemy == SQLALCHEMYS["2.1"]:
        session.skip("SQLAlchemy 2.1 needs Python 3.11")
    session.install("-e", ".[test]", sqlalchemy)
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and types, of all files or of those given."""
    session.install("-e", ".[test,lint,cli]")
    paths = session.posargs or ["."]
    session.run("flake8", *paths)
    session.run("black", "--check", *paths)
    session.run("mypy", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation, and see where its links lead."""
    session.install("-e", ".[docs]")
    html = Path("docs", "_build", "html")
    if html.exists():
        shutil.rmtree(html)  # or pages that are gone would be linked to
    session.run(
        *("python", "-m", "sphinx", "-W", "--keep-going", "-E", "-q"),
        *("-b", "html", "docs", str(html)),
    )
    session.run("python", "-m", "tests.lab.links", str(html))


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the tests and tell which lines they leave out."""
    session.install("-e", ".[test]")
    session.run("python", "-m", "pytest", "--cov", *session.posargs)


@nox.session(name="faults-long")
def faults_long(session: nox.Session) -> None:
    """Run the tests of the fault laboratory, with faults of full length."""
    session.install("-e", ".[test]")
    session.run(
        *("python", "-m", "pytest", "tests/faults", *session.posargs),
        env={"SMARTPOOL_FAULTS": "long"},
    )


INSTALLED = """
from importlib.metadata import entry_points, version
from importlib.resources import files
import sqla_smartpool
from sqla_smartpool.integrations.status import asgi_app

assert files("sqla_smartpool").joinpath("py.typed").is_file()
asgi_app([])  # reads the files of the page
(plugin,) = entry_points(group="sqlalchemy.plugins", name="smartpool")
print("sqla_smartpool", version("sqla_smartpool"), plugin.load())
"""


@nox.session
def build(session: nox.Session) -> None:
    """Build wheel and sdist, and install each in an empty environment."""
    session.install("build", "twine")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dist = folder / "dist"
        session.run(
            "python", "-m", "build", "--outdir", str(dist), *session.posargs
        )
        built = sorted(dist.iterdir())
        session.run("twine", "check", "--strict", *map(str, built))
        for file in built:
            venv = folder / "venv"
            session.run("python", "-m", "venv", "--clear", str(venv))
            scripts = "Scripts" if os.name == "nt" else "bin"
            python = str(venv / scripts / "python")
            for command in (
                ["-m", "pip", "install", "--quiet", str(file)],
                ["-m", "pip", "check"],
                # -I: not what lies in the current folder
                ["-I", "-c", INSTALLED],
            ):
                session.run(python, *command, external=True)
