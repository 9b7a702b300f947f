"""Supabase's own lints have nothing to say about the schema, and would have if there were something."""

import psycopg
import pytest
from tests.conftest import apply_migrations
from tests.servers import advisors, bootstrap

pytestmark = pytest.mark.slow

EXPOSED = [("public",), ("public", "llm_memory")]
BREAKS = {
    # a table without row-level security
    "rls_disabled_in_public": "create table public.careless (id int); grant select on public.careless to anon",
    "policy_exists_rls_disabled": "alter table llm_memory.messages disable row level security",
    "rls_policy_always_true": "alter policy own_update on llm_memory.memories using (true) with check (true)",
    "multiple_permissive_policies": """create policy also on llm_memory.relations for select to authenticated
        using (user_id = 'me')""",
    "auth_rls_initplan": """alter policy own_select on llm_memory.facts
        using (user_id = current_setting('request.jwt.claims', true)::json ->> 'sub')""",
    "function_search_path_mutable": "alter function public.page_messages reset search_path",
    "security_definer_view": """alter view llm_memory.message_rows reset (security_invoker);
        grant select on llm_memory.message_rows to anon""",
    "duplicate_index": """create index once on llm_memory.facts (user_id, status);
        create index again on llm_memory.facts (user_id, status)""",
    "extension_in_public": "alter extension vector set schema public",
}


@pytest.fixture(scope="module")
def migrated(postgres):
    url = postgres.create_database("advisors")
    bootstrap(url)
    apply_migrations(url)
    return url


@pytest.mark.parametrize("schemas", EXPOSED, ids="+".join)
def test_the_lints_are_silent(migrated, schemas):
    found = advisors(migrated, schemas)
    assert [(lint["name"], lint["detail"]) for lint in found if lint["level"] != "INFO"] == []
    hints = [lint["detail"] for lint in found if lint["name"] != "unused_index"]  # of a database nobody has used yet
    assert hints == ["Table `llm_memory.migrations` has RLS enabled, but no policies exist"]


def test_the_lints_find_what_is_broken(postgres, migrated):
    url = postgres.create_database("advisors_broken", template="advisors")
    with psycopg.connect(url) as connection:
        for statement in BREAKS.values():
            connection.execute(statement)
    assert {lint["name"] for lint in advisors(url, EXPOSED[1]) if lint["level"] in {"WARN", "ERROR"}} == set(BREAKS)
