"""A migrated database of plain PostgreSQL's for these tests alone, with a row of two users in every table."""

import json
import uuid
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from tests.conftest import apply_migrations
from tests.security import catalog
from tests.servers import bootstrap

A, B, STRANGER = (str(uuid.UUID(int=number)) for number in (0xA, 0xB, 0xC))  # the stranger has no rows


class Actor(NamedTuple):
    """Whom a transaction acts as; without a role it is the bare login."""

    role: str | None = None
    claims: str = ""


def user(user_id):
    return Actor("authenticated", json.dumps({"sub": user_id, "role": "authenticated"}))


ANON = Actor("anon", '{"role": "anon"}')
SERVICE = Actor("service_role")
NOBODY = Actor()


class Outcome(NamedTuple):
    rows: list | None
    count: int
    code: str | None  # an SQLSTATE
    said: str


class Login:
    """The login that may only act for others; each statement is a transaction, opened as the transport does."""

    def __init__(self, url):
        self.connection = psycopg.connect(url, autocommit=True)
        self.connection.execute("set statement_timeout = '5s'")

    def run(self, actor, statement, parameters=None, *, keep=True):
        try:
            with self.connection.transaction(force_rollback=not keep):
                if actor.role is not None:
                    assume = "select set_config('role', %s, true), set_config('request.jwt.claims', %s, true)"
                    self.connection.execute(assume, actor)
                cursor = self.connection.execute(statement, parameters)
                return Outcome(cursor.fetchall() if cursor.description else None, cursor.rowcount, None, "")
        except psycopg.Error as error:
            return Outcome(None, 0, error.sqlstate or "", str(error))


@pytest.fixture(scope="session")
def plain_url(postgres):
    """No API server ever works on it: that would grant everything to everyone."""
    url = postgres.create_database("tenants")
    bootstrap(url)
    apply_migrations(url)
    return url


@pytest.fixture(scope="session")
def plain_login_url(plain_url, authenticator_url):
    return urlunsplit(urlsplit(authenticator_url)._replace(path=urlsplit(plain_url).path))


@pytest.fixture
def admin(plain_url):
    with psycopg.connect(plain_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def login(plain_login_url):
    opened = Login(plain_login_url)
    yield opened
    opened.connection.close()


@pytest.fixture
def filled(plain_url):
    catalog.fill(plain_url, A, B)
    return plain_url
