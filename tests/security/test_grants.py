"""Who may do what, as PostgreSQL's catalog has it: grants, policies, and how functions and views run."""

import re

import psycopg
import pytest
from tests.conftest import apply_migrations
from tests.security import catalog
from tests.security.catalog import EVERYBODYS, NOBODYS, tables, tenant_tables, views
from tests.servers import bootstrap

pytestmark = pytest.mark.slow

ALLOWED = {
    "r": {"SELECT", "INSERT", "UPDATE", "DELETE"},  # tables
    "v": {"SELECT"},
    "S": set(),  # sequences of identities need none
    "f": {"EXECUTE"},
    "n": {"USAGE"},  # schemas
}
USERS = {"authenticated", "service_role"}
FOR_THE_OWNER_ONLY = NOBODYS | {
    "llm_memory.protect",
    "llm_memory.index_embeddings",
    "llm_memory.drop_embeddings_index",
}

# Everything of ours with what is granted on it to others than its owner. A null list means the default of its kind,
# which for functions lets everybody call them.
GRANTS = """
with ours as (
    select c.oid, case relkind when 'p' then 'r' when 'm' then 'v' else relkind end as kind,
           nspname || '.' || relname as name, relowner as owner,
           coalesce(relacl, acldefault(case relkind when 'S' then 's' else 'r' end::"char", relowner)) as acl
    from pg_class c join pg_namespace n on n.oid = relnamespace
    where nspname = any (%(ours)s) and relkind in ('r', 'p', 'v', 'm', 'S', 'f')
    union all
    select p.oid, 'f', nspname || '.' || proname, proowner, coalesce(proacl, acldefault('f', proowner))
    from pg_proc p join pg_namespace n on n.oid = pronamespace where nspname = any (%(ours)s)
    union all
    select oid, 'n', nspname, nspowner, coalesce(nspacl, acldefault('n', nspowner))
    from pg_namespace where nspname = 'llm_memory'
)
select kind, name, coalesce(json_agg(json_build_array(coalesce(rolname, 'PUBLIC'), privilege_type, is_grantable))
                            filter (where grantee is not null), '[]')
from ours left join lateral (select * from aclexplode(acl) x where x.grantee <> ours.owner) a on true
left join pg_roles r on r.oid = grantee
where not exists (select from pg_depend where objid = ours.oid and deptype = 'e')
group by kind, name order by kind, name
"""


def grants(url):
    with psycopg.connect(url) as connection:
        found = connection.execute(GRANTS, {"ours": list(catalog.OURS)}).fetchall()
    return {(kind, name): {tuple(grant) for grant in given} for kind, name, given in found}


def expected(kind, name):
    if name in FOR_THE_OWNER_ONLY:
        return set()
    if name in EVERYBODYS:
        return {(role, "SELECT", False) for role in USERS} | {("service_role", "UPDATE", False)}
    return {(role, privilege, False) for role in USERS for privilege in ALLOWED[kind]}


def test_each_role_has_what_it_needs_and_nothing_more(plain_url):
    found = grants(plain_url)
    assert {kind for kind, _ in found} == set(ALLOWED)
    assert {which: given for which, given in found.items() if given != expected(*which)} == {}


def test_grants_are_the_same_where_new_objects_are_open_by_default(postgres):
    """As they were on hosted projects for years, and still are on old ones."""
    url = postgres.create_database("open_by_default")
    bootstrap(url)
    with psycopg.connect(url) as connection:
        for kind in ("tables", "sequences", "functions", "schemas"):
            connection.execute(
                f"alter default privileges grant all on {kind} to public, anon, authenticated, service_role"
            )
    apply_migrations(url)
    assert {which: given for which, given in grants(url).items() if given != expected(*which)} == {}


def test_no_column_is_granted_by_itself_and_nobody_else_owns_anything(admin):
    columns = """select relname, attname from pg_attribute join pg_class c on c.oid = attrelid
                 join pg_namespace n on n.oid = relnamespace where nspname = 'llm_memory' and attacl is not null"""
    assert admin.execute(columns).fetchall() == []
    owned = """select rolname from pg_roles where rolname in ('anon', 'authenticated', 'service_role', 'authenticator')
               and oid in (select relowner from pg_class union select proowner from pg_proc
                           union select nspowner from pg_namespace)"""
    assert admin.execute(owned).fetchall() == []


def test_only_the_service_passes_by_row_level_security_and_the_login_has_no_rights_of_its_own(admin):
    roles = """select rolname, rolinherit, rolbypassrls or rolsuper from pg_roles
               where rolname in ('anon', 'authenticated', 'service_role', 'authenticator') order by 1"""
    assert admin.execute(roles).fetchall() == [
        ("anon", False, False),
        ("authenticated", False, False),
        ("authenticator", False, False),
        ("service_role", False, True),
    ]


def test_row_level_security_is_on_and_forced_on_every_table(admin):
    secured = admin.execute(
        "select nspname || '.' || relname, relrowsecurity, relforcerowsecurity from pg_class join pg_namespace n "
        "on n.oid = relnamespace where relkind in ('r', 'p') and nspname = any (%s)",
        [list(catalog.OURS)],
    ).fetchall()
    assert {name for name, _, _ in secured} == {table.name for table in tables(admin)}
    # The list of migrations is its owner's to write, who need not be a superuser.
    assert {name for name, on, forced in secured if not (on and (forced or name in NOBODYS))} == set()


def test_every_table_has_one_policy_a_command_that_asks_for_the_user(admin):
    found = admin.execute(
        """select schemaname || '.' || tablename, cmd, permissive, roles::text[], qual, with_check from pg_policies
           where schemaname = any (%s)""",
        [list(catalog.OURS)],
    ).fetchall()
    commands = ["DELETE", "INSERT", "SELECT", "UPDATE"]
    for table in tenant_tables(admin):
        assert sorted(policy[1] for policy in found if policy[0] == table.name) == commands, table.name
    shared = [policy for policy in found if policy[0] in EVERYBODYS]
    assert [policy[:5] for policy in shared] == [
        ("llm_memory.store", "SELECT", "PERMISSIVE", ["authenticated"], "true")
    ]
    found = [policy for policy in found if policy not in shared]
    assert {policy[0] for policy in found} == {table.name for table in tenant_tables(admin)}
    for name, command, permissive, roles, qual, with_check in found:
        assert (permissive, roles) == ("PERMISSIVE", ["authenticated"]), name
        assert (qual is not None, with_check is not None) == (command != "INSERT", command in {"INSERT", "UPDATE"}), (
            name
        )
        for condition in filter(None, (qual, with_check)):
            assert re.match(r"\(user_id = \( SELECT .*'request\.jwt\.claims'", condition), (name, command)


def test_every_key_begins_with_the_user(admin):
    keys = admin.execute(
        """select indexrelid::regclass::text, attname from pg_index join pg_class c on c.oid = indrelid
           join pg_namespace n on n.oid = relnamespace join pg_attribute on attrelid = indrelid and attnum = indkey[0]
           where indisunique and nspname = any (%s) and nspname || '.' || relname <> all (%s)""",
        [list(catalog.OURS), list(NOBODYS | EVERYBODYS)],
    ).fetchall()
    assert len(keys) >= len(tenant_tables(admin))
    assert {name for name, first in keys if first != "user_id"} == set()


def test_every_reference_stays_with_the_user(admin):
    references = admin.execute(
        """select conname, f.attname, t.attname from pg_constraint k join pg_namespace n on n.oid = connamespace
           join pg_attribute f on f.attrelid = conrelid and f.attnum = conkey[1]
           join pg_attribute t on t.attrelid = confrelid and t.attnum = confkey[1]
           where contype = 'f' and nspname = any (%s)""",
        [list(catalog.OURS)],
    ).fetchall()
    assert references
    assert {name for name, own, others in references if (own, others) != ("user_id", "user_id")} == set()


def test_views_look_with_the_rights_of_who_asks(admin):
    invoking = admin.execute(
        """select relname, reloptions from pg_class
           where relkind in ('v', 'm') and relnamespace = any (%s::regnamespace[])""",
        [list(catalog.OURS)],
    ).fetchall()
    assert len(invoking) == len(views(admin)) > 0
    assert {name for name, options in invoking if "security_invoker=true" not in (options or ())} == set()


def test_functions_run_with_the_rights_of_who_calls_and_look_nothing_up(admin):
    found = admin.execute(
        """select proname, prosecdef, proconfig from pg_proc p join pg_namespace n on n.oid = pronamespace
           where nspname = any (%s)
             and not exists (select from pg_depend where objid = p.oid and deptype = 'e')""",
        [list(catalog.OURS)],
    ).fetchall()
    assert len(found) == len(catalog.functions(admin)) > 0
    assert {name for name, definer, _ in found if definer} == set()
    assert {name for name, _, config in found if 'search_path=""' not in (config or ())} == set()
    triggers = """select tgname from pg_trigger t join pg_class c on c.oid = tgrelid
                  where not tgisinternal and relnamespace = 'llm_memory'::regnamespace"""
    assert admin.execute(triggers).fetchall() == []


def test_nothing_can_be_hung_on_or_made_beside_the_tables(admin):
    for role in ("public", "anon", "authenticated", "service_role", "authenticator"):
        for table in [*tables(admin), *views(admin)]:
            for privilege in ("TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN"):
                query = "select has_table_privilege(%s, %s, %s)"
                assert admin.execute(query, [role, table.name, privilege]).fetchone() == (False,), (role, table.name)
        create = (
            "select has_schema_privilege(%s, 'llm_memory', 'create') or has_schema_privilege(%s, 'public', 'create')"
        )
        assert admin.execute(create, [role, role]).fetchone() == (False,), role
