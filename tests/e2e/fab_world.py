"""A second API server over the session's database, with FAB's auth manager, and users of it."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx

from local.paths import REPOSITORY
from local.servers import airflow as airflow_server
from local.servers.airflow import OPERATOR, USER, VIEWER
from local.servers.ports import HOST
from local.stack import Stack
from tests.e2e.airflow_world import PAGE
from tests.e2e.conftest import NORTH, SOUTH

MANAGER = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
SETTINGS = "AIRFLOW_VAR_USER_OWNERSHIP_TRANSFER"
CACHE_S = 1
"""How long FAB takes a user for what they were."""
BOTH, ELSEWHERE, NOBODY = "both", "elsewhere", "nobody"
USERS = {
    OPERATOR: ("Op",),
    VIEWER: ("Viewer",),
    NORTH: (NORTH,),
    SOUTH: (SOUTH,),
    BOTH: (NORTH, SOUTH),
    ELSEWHERE: ("User",),
    NOBODY: ("Public",),
}
"""Roles by user. Those of the organisations' admins are ours, the others FAB's own; `USER` is `Admin`."""
RIGHTS = [
    *({"role": role, "organisations": "*"} for role in ("Admin", "Op", "Viewer")),
    *({"role": role, "organisations": [f"org-{role}"]} for role in (NORTH, SOUTH)),
]


def role_of_an_admin() -> dict[str, Any]:
    """The role that docs/security.md gives to an organisation's admin, word for word."""
    text = (REPOSITORY / "docs/security.md").read_text()
    found: dict[str, Any] = json.JSONDecoder().raw_decode(text, text.index('{"name": "north-admin"'))[0]
    return found


@dataclass(frozen=True)
class Fab:
    """The API server, and its users; each user's password is the stack's one."""

    url: str
    password: str

    def page(self, user: str) -> httpx.Client:
        """The page for a user, by the cookies of FAB's login form; to be closed by the caller."""
        with httpx.Client(base_url=self.url, timeout=60) as browser:
            answer = sign_in(browser, "/auth/login/", user, self.password)
            assert answer.status_code == 302, answer.text
            return httpx.Client(base_url=f"{self.url}{PAGE}", timeout=60, cookies=browser.cookies)

    def page_api(self, user: str) -> httpx.Client:
        """The page for a user, by a token; to be closed by the caller."""
        return self._client(PAGE, user)

    def airflow_api(self, user: str) -> httpx.Client:
        """Airflow's own API for a user; to be closed by the caller."""
        return self._client("/api/v2", user)

    def give(self, user: str, *roles: str) -> None:
        """Let the user have these roles and no other."""
        with self._client("/auth/fab/v1", USER) as admin:
            body = {"roles": [{"name": role} for role in roles]}
            admin.patch(f"/users/{user}?update_mask=roles", json=body).raise_for_status()

    def add_users(self) -> None:
        """Create roles and users."""
        with self._client("/auth/fab/v1", USER) as admin:
            for name in (NORTH, SOUTH):
                admin.post("/roles", json={**role_of_an_admin(), "name": name}).raise_for_status()
            for user, roles in USERS.items():
                body = {
                    "username": user,
                    "password": self.password,
                    "email": f"{user}@example.org",
                    "first_name": user,
                    "last_name": "of the tests",
                    "roles": [{"name": role} for role in roles],
                }
                admin.post("/users", json=body).raise_for_status()

    def _client(self, path: str, user: str) -> httpx.Client:
        bearer = f"Bearer {airflow_server.token(self.url, user, self.password)}"
        return httpx.Client(base_url=f"{self.url}{path}", timeout=60, headers={"authorization": bearer})


def sign_in(browser: httpx.Client, address: str, user: str, password: str, **changed: str) -> httpx.Response:
    """Fill FAB's login form in and send it: the answer to that, a redirect if it is good."""
    page = browser.get(address, follow_redirects=True)
    csrf = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page.text)
    assert csrf, page.text
    sent = {"csrf_token": html.unescape(csrf[1]), "username": user, "password": password, **changed}
    return browser.post(page.url, data=sent, follow_redirects=False)


@contextmanager
def opened_fab(stack: Stack) -> Iterator[Fab]:
    """The API server, with its users. FAB's tables are there: `airflow db migrate` makes those of every provider."""
    layout, first = stack.layout, stack.servers["api-server"]
    port = layout.port("airflow-fab")
    url = f"http://{HOST}:{port}"
    password = stack.addresses.airflow_password
    environment = {
        **first.environment,
        "AIRFLOW__CORE__AUTH_MANAGER": MANAGER,
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__FAB__CACHE_TTL": str(CACHE_S),
        "AIRFLOW__FAB__AUTH_RATE_LIMITED": "False",  # by default 5 logins in 40 s
        SETTINGS: json.dumps({**json.loads(stack.airflow_env[SETTINGS]), "page.organisations": RIGHTS}),
    }
    server = replace(
        first,
        name="api-server-fab",
        log_file=layout.log("airflow-api-server-fab"),
        pid_file=layout.pid("airflow-api-server-fab"),
        address=url,
        answers=lambda: airflow_server.api_answers(url),
        environment=environment,
        ports=(port,),
    )
    # Rights to single DAGs, which otherwise come with parsing: the session parses under the simple auth manager.
    command(environment, "sync-perm", "--include-dags")
    user = ("--username", USER, "--password", password, "--email", "admin@example.org")
    command(
        environment, "users", "create", "--role", "Admin", *user, "--firstname", "An", "--lastname", "Admin"
    )
    with server:
        fab = Fab(url, password)
        fab.add_users()
        yield fab


def command(environment: Mapping[str, str], *words: str) -> None:
    """An `airflow …` command that succeeds."""
    done = airflow_server.run(environment, *words, timeout_s=180)
    assert done.returncode == 0, done.stdout + done.stderr
