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


CONFIG = configparser.ConfigParser()
CONFIG.read(Path(__file__).with_name("setup.cfg"), encoding="utf-8")


def lowest_sqlalchemy() -> str:
    """Return the lowest version that setup.cfg allows, such as "2.0.53"."""
    requires = CONFIG["options"]["install_requires"]
    found = re.search(r"^sqlalchemy\s*>=\s*([\d.]+)", requires, re.M | re.I)
    assert found, "setup.cfg gives no lower bound for SQLAlchemy"
    return found[1]


def extras() -> set[str]:
    return set(CONFIG["options.extras_require"])


def in_extras(*names: str) -> list[str]:
    """Return what is required by one of these names, with its versions."""
    required = " ".join(CONFIG["options.extras_require"].values()).split()
    return [each for each in required if each.partition(">=")[0] in names]


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
        # some take many minutes, and others are not to wait behind them
        *("python", "-m", "pytest", "--dist", "worksteal", "tests/faults"),
        *session.posargs,
        env={"SMARTPOOL_FAULTS": "long"},
    )


INSTALLED = """
from importlib.metadata import entry_points, version
from importlib.resources import files
from importlib.util import find_spec
import sqla_smartpool
import sqla_smartpool.testing
from sqla_smartpool.integrations.status import asgi_app

assert files("sqla_smartpool").joinpath("py.typed").is_file()
asgi_app([])  # reads the files of the page
(plugin,) = entry_points(group="sqlalchemy.plugins", name="smartpool")
(fixtures,) = entry_points(group="pytest11", name="pytest_sqla_smartpool")
assert find_spec(fixtures.module)
print("sqla_smartpool", version("sqla_smartpool"), plugin.load())
"""

#: what works once a user has installed an extra, by its name
WITH_EXTRA = {
    "cli": ["-m", "sqla_smartpool", "stress", "--help"],
    "opentelemetry": [
        "-c",
        "import sqla_smartpool.integrations.opentelemetry",
    ],
    "prometheus": ["-c", "import sqla_smartpool.integrations.prometheus"],
    "tune": ["-c", "import matplotlib, sqla_smartpool.cli.tune"],
}
#: extras that need a checkout, or a compiler
FOR_DEVELOPERS = {
    "benchmarks",
    "docs",
    "lint",
    "migration",
    "mysqlclient",
    "test",
    "typing",
}


class CleanEnvironment:
    """One with nothing in it, of the session's Python."""

    def __init__(self, session: nox.Session, folder: Path) -> None:
        self._session = session
        self._folder = folder
        scripts = "Scripts" if os.name == "nt" else "bin"
        self.python = str(folder / scripts / "python")

    def install(self, *packages: str) -> None:
        """Make it anew, with these packages."""
        self._session.run("python", "-m", "venv", "--clear", str(self._folder))
        self.run("-m", "pip", "install", "--quiet", *packages)
        self.run("-m", "pip", "check")

    def run(self, *command: str, silent: bool = False) -> str:
        return str(
            self._session.run(
                self.python, *command, external=True, silent=silent
            )
        )


def built(session: nox.Session, folder: Path) -> list[Path]:
    """Build sdist and wheel, in this order."""
    session.run("python", "-m", "build", "--outdir", str(folder))
    files = sorted(folder.iterdir(), key=lambda file: file.suffix)
    session.run("twine", "check", "--strict", *map(str, files))
    return files


@nox.session
def build(session: nox.Session) -> None:
    """Build wheel and sdist, install each, and use it with types."""
    session.install("build", "twine", *in_extras("basedpyright", "mypy"))
    with tempfile.TemporaryDirectory() as name:
        clean = CleanEnvironment(session, Path(name) / "venv")
        for file in built(session, Path(name) / "dist"):
            clean.install(str(file))
            # -I: not what lies in the current folder
            clean.run("-I", "-c", INSTALLED)
        # elsewhere, or it would see this folder and not what was installed
        consumer = shutil.copytree("tests/consumer", Path(name) / "consumer")
        away = {"PYTHONPATH": ""}
        with session.chdir(consumer):
            session.run(
                "mypy", "--python-executable", clean.python, ".", env=away
            )
            session.run("basedpyright", "--pythonpath", clean.python, env=away)


@nox.session(python=PYTHONS)
def install(session: nox.Session) -> None:
    """Install sdist and wheel on one Python, and the wheel with each extra."""
    session.install("build", "twine")
    with tempfile.TemporaryDirectory() as name:
        clean = CleanEnvironment(session, Path(name) / "venv")
        sdist, wheel = built(session, Path(name) / "dist")
        clean.install(str(sdist))
        clean.run("-I", "-c", INSTALLED)
        with session.chdir(name):
            clean.install(str(wheel), "pytest")
            said = clean.run("-m", "pytest", "--fixtures", silent=True)
            assert "smartpool_outage" in said, said
            for extra in sorted(extras() - FOR_DEVELOPERS):
                clean.install(f"{wheel}[{extra}]")
                clean.run("-I", "-c", INSTALLED)
                clean.run(*WITH_EXTRA[extra])


@nox.session
def mysqlclient(session: nox.Session) -> None:
    """Run the tests with the driver that is compiled as it is installed."""
    session.install("-e", ".[test,mysqlclient]")
    session.run(
        "python",
        "-m",
        "pytest",
        *(session.posargs or ["-k", "mysqldb or mysqlclient"]),
    )
