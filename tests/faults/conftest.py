"""Servers of these tests' own, since they are killed, frozen and cut off; they stand again after each test."""

from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import pytest
from tests.conftest import apply_migrations
from tests.servers import Postgres, Redis, bootstrap


@dataclass
class Stores:
    """A PostgreSQL with the schema and a Redis."""

    postgres: Postgres
    redis: Redis

    @property
    def behind(self):
        """The database as its superuser."""
        return self.postgres.database_url("memory")

    @property
    def url(self):
        """The database as the login that may only act for others."""
        parts = urlsplit(self.behind)
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit(parts._replace(netloc=f"authenticator:authenticator-of-the-tests@{host}"))

    def heal(self):
        for server in (self.postgres, self.redis):
            if server.running:
                server.cont()
            else:
                server.restart()


@pytest.fixture(scope="session")
def own_stores():
    with Postgres() as postgres, Redis() as redis:
        stores = Stores(postgres, redis)
        postgres.create_database("memory")
        bootstrap(stores.behind)
        apply_migrations(stores.behind)
        yield stores


@pytest.fixture
def stores(own_stores):
    yield own_stores
    own_stores.heal()
