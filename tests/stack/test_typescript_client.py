"""The TypeScript client and real supabase-js under Node, against the API process and the embedded Supabase.

The steps are those of clients/typescript/tests/journey.test.ts.
"""

from clients import generate
from tests.stack.conftest import EmbeddedSupabase
from tests.stack.product import Api


def test_a_page_with_supabase_js_gets_along_with_the_api(supabase: EmbeddedSupabase, api: Api):
    journey = generate.run_node(
        "--test",
        "--test-reporter=spec",
        "tests/journey.test.ts",
        env={
            "SUPABASE_URL": supabase.url,
            "SUPABASE_PUBLISHABLE_KEY": supabase.publishable_key,
            "TOCSIN_URL": api.url,
        },
    )
    assert journey.returncode == 0, journey.stdout + journey.stderr
