"""Supabase's API (npm `@supabase/lite`) over any PostgreSQL, and Supabase's own lints of a database."""

import http.client
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import jwt
import psycopg
from tests.servers.processes import HOST, Server

MODULES = Path(__file__).parents[1] / "supabase" / "node_modules"
BOOTSTRAP = Path(__file__).with_name("bootstrap.sql")
SECRET = "the-jwt-secret-of-the-tests-which-signs-nothing-else"
QUIET = {"LITE_TELEMETRY": "0", "DO_NOT_TRACK": "1", "SUPABASE_TELEMETRY_DISABLED": "1", "NO_COLOR": "1"}
FAR = 4102444800  # the year 2100, when tokens expire

CONFIG = """\
project_id = "tests"

[api]
port = {port}
schemas = ["public"]

[db]
driver = "postgres"
url = "{database_url}"

[auth]
enabled = true
jwt_secret = "{secret}"
publishable_key = "{anon_key}"
secret_key = "{service_key}"
"""


def bootstrap(database_url):
    """Give a plain database the roles, schemas and functions of a hosted project. Comes before all migrations."""
    with psycopg.connect(database_url) as connection:
        connection.execute(BOOTSTRAP.read_text())


class SupabaseApi(Server):
    """The API of a database that has its migrations already: it remembers which tables have row security.

    It grants everything on all tables to `anon`, `authenticated` and `service_role`, which hosted projects do not:
    test grants without it.
    """

    anon_key = "sb_publishable_of-the-tests"
    service_key = "sb_secret_of-the-tests"

    def __init__(self, database_url):
        super().__init__()
        self.url = f"http://{HOST}:{self.port}"
        self.database_url = database_url
        self.config = self.folder / "supabase" / "config.toml"
        self.config.parent.mkdir()
        keys = {"anon_key": self.anon_key, "service_key": self.service_key, "secret": SECRET}
        self.config.write_text(CONFIG.format(port=self.port, database_url=database_url, **keys))

    def token(self, user_id, role="authenticated", **claims):
        """A signed JWT of a user, whose id is a UUID."""
        claims = {"sub": str(user_id), "role": role, "aud": "authenticated", "exp": FAR} | claims
        return jwt.encode(claims, SECRET, algorithm="HS256")

    def start(self):
        super().start()
        bootstrap(self.database_url)  # its own auth.uid() reads a setting that only itself sets: put ours back
        return self

    def command(self):
        lite = _script("@supabase/lite/dist/cli/index.js")
        return [_node(), lite, "start", "--no-admin", "--no-telemetry", "--config", self.config]

    def environment(self):
        return {**os.environ, **QUIET, "HOME": str(self.folder)}

    def ready(self):
        connection = http.client.HTTPConnection(HOST, self.port, timeout=10)
        try:
            # The first answer reads the whole schema: a test's first request should not wait for that.
            connection.request("GET", "/rest/v1/", headers={"apikey": self.anon_key})
            return connection.getresponse().status < 500
        except OSError:
            return False
        finally:
            connection.close()


def advisors(database_url, schemas=("public",)):
    """Supabase's security and performance lints: dicts with `name`, `level`, `detail`, `metadata` and more.

    Args:
        database_url: of a superuser.
        schemas: those the API exposes; the lints of exposed tables, views and functions look into no others.
    """
    supabase = _script("supabase/dist/supabase.js")
    with tempfile.TemporaryDirectory(prefix="llm-memory-test-") as folder:
        config = Path(folder) / "supabase" / "config.toml"
        config.parent.mkdir()
        config.write_text(f'project_id = "tests"\n[api]\nschemas = {json.dumps(list(schemas))}\n')
        options = ["--level", "info", "--fail-on", "none", "--output-format", "json", "--workdir", folder]
        result = subprocess.run(
            [_node(), str(supabase), "db", "advisors", f"--remote={database_url}", *options],
            env={**os.environ, **QUIET, "HOME": folder},
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
    if result.returncode:
        raise RuntimeError(f"supabase db advisors: {result.stdout}{result.stderr}")
    return json.loads(result.stdout)["results"]


def _script(path):
    script = MODULES / path
    if not script.exists():
        raise RuntimeError("the npm packages of tests/supabase are missing: run `make test` or `npm ci` there")
    return script


def _node():
    node = shutil.which("node")
    if node is None:
        raise RuntimeError("Node.js 20 or newer has to be installed: Supabase's API runs on it")
    return node
