"""``meibo check`` against simulated directories over HTTPS: it names every problem and changes nothing."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from meibo.providers.auth0.checks import OPTIONAL_SCOPES, REQUIRED_SCOPES
from meibo_simulators import faults
from meibo_simulators.auth0.tenant import FIRST_CONNECTION, SCOPES
from meibo_simulators.cybozu.secure_access import SecureAccess
from tests.integration.cli.conftest import CommandResult, Meibo, invoke
from tests.support.local_runs import LocalRuns

USERS = {"dataset": "users"}
ORGANIZATIONS = {"dataset": "organizations"}
MEMBERS = {"dataset": "members"}
DIRECTORY = {"dataset": "directory"}
# Tokens, e-mail addresses, URLs, and the passwords of the simulators.
LEAKS = re.compile(r"eyJ[A-Za-z0-9_-]{8,}|Bearer |[\w.+-]+@[\w-]+\.\w|https?://|simulated[-:]|pässwörd")
ALL_DATASETS = [{"dataset": name} for name in REQUIRED_SCOPES]
DATASET_SCOPES = sorted({scope for scopes in REQUIRED_SCOPES.values() for scope in scopes})
(ROLES_SCOPE,) = OPTIONAL_SCOPES.values()


@pytest.fixture
def meibo(runs: LocalRuns) -> Meibo:
    """Run a ``meibo`` command in this process. Its output must not contain a secret."""

    def run(*arguments: str) -> CommandResult:
        result = invoke(*arguments)
        assert LEAKS.findall(result.output + result.errors) == []
        return result

    return run


def by_name(result: CommandResult) -> dict[str, Any]:
    """Return the checks of ``--json`` by subject and name."""
    return {f"{check['subject']}: {check['check']}": check for check in result.json()["checks"]}


def failed(result: CommandResult) -> dict[str, str]:
    return {name: check["detail"] for name, check in by_name(result).items() if check["status"] == "failed"}


def statuses(result: CommandResult) -> dict[str, str]:
    return {name: check["status"] for name, check in by_name(result).items()}


def test_everything_is_checked_and_nothing_is_changed(runs: LocalRuns, meibo: Meibo) -> None:
    runs.configure([USERS, ORGANIZATIONS, MEMBERS], [DIRECTORY, {**DIRECTORY, "format": "ndjson"}])
    before = set(runs.folder.rglob("*"))

    result = meibo("check", "--json")

    assert result.status == 0, result.output
    assert result.json()["ok"] is True
    assert set(statuses(result).values()) == {"ok"}
    assert list(statuses(result)) == [
        *("acme: credentials", "acme: DNS and TLS", "acme: access token", "acme: read:users"),
        *("acme: read:organizations", "acme: read:organization_connections", "acme: read:organization_members"),
        *("acme: read:organization_member_roles", "acme: expected run"),
        *("example: credentials", "example: DNS and TLS", "example: login", "example: CSV files"),
        "example: expected run",
    ]
    details = {name: check["detail"] for name, check in by_name(result).items()}
    assert details["acme: read:users"] == "OAuth scope for the dataset users; 300 users in the tenant"
    assert details["acme: read:organizations"] == (
        "OAuth scope for the datasets organizations and members; 6 organizations in the tenant"
    )
    written = {(request.method, request.path) for request in runs.tenant.requests if request.method != "GET"}
    assert written == {("POST", "/oauth/token")}
    assert {request.method for request in runs.domain.requests} == {"GET"}
    assert set(runs.folder.rglob("*")) == before


def test_table_has_marks_and_is_not_wrapped_in_a_pipe(runs: LocalRuns, meibo: Meibo) -> None:
    runs.configure([USERS, MEMBERS], [], acme=runs.tenant.limited_client("read:users", "read:organizations"))

    result = meibo("check")

    assert result.status == 1
    name = runs.tenant.domain
    lines = result.output.splitlines()
    assert lines[0] == "acme (Auth0)"
    assert lines[1] == "✓  credentials                     client_id and client_secret"
    assert lines[6] == (
        f"✗  read:organization_members       Auth0 ({name}) requires the OAuth scope read:organization_members for the"
        " dataset members; grant it to the application for the Management API"
    )
    assert lines[7] == "–  read:organization_member_roles  not checked, because it requires: read:organization_members"
    assert lines[-1] == "1 of 8 checks failed, 2 not checked"
    assert all(line == line.rstrip() for line in lines)


def test_output_without_unicode_has_other_marks(runs: LocalRuns, meibo: Meibo, monkeypatch: pytest.MonkeyPatch) -> None:
    runs.configure([USERS], [], acme={"client_id": "unknown", "client_secret": "wrong"})
    runs.variables |= {"PYTHONIOENCODING": "ascii"}

    result = runs.run(command="check")

    assert result.returncode == 1
    assert "+  DNS and TLS   localhost:" in result.stdout
    assert "x  access token  Auth0 (localhost:" in result.stdout
    assert "-  read:users    not checked, because it requires: access token\n" in result.stdout


# -- Auth0


@pytest.mark.parametrize("refusal", ["both", "missing"])
@pytest.mark.parametrize("scope", DATASET_SCOPES)
def test_missing_oauth_scope_is_named(runs: LocalRuns, meibo: Meibo, scope: str, refusal: Any) -> None:
    runs.tenant.switches.members_refusal = refusal
    runs.configure(ALL_DATASETS, [], acme=runs.tenant.limited_client(*(SCOPES - {scope, "create:users"})))

    result = meibo("check", "--json")

    assert result.status == 1
    datasets = [name for name, scopes in REQUIRED_SCOPES.items() if scope in scopes]
    subject = f"the dataset{'s' if len(datasets) > 1 else ''} {' and '.join(datasets)}"
    assert failed(result) == {
        f"acme: {scope}": f"Auth0 ({runs.tenant.domain}) requires the OAuth scope {scope} for {subject}; grant it to"
        " the application for the Management API"
    }
    assert by_name(result)[f"acme: {scope}"]["error"] == "ScopeMissingError"


def test_all_missing_oauth_scopes_are_named_at_once(runs: LocalRuns, meibo: Meibo) -> None:
    runs.configure(ALL_DATASETS, [], acme=runs.tenant.limited_client("create:users"))

    result = meibo("check", "--json")

    assert sorted(failed(result)) == [f"acme: {scope}" for scope in DATASET_SCOPES]


def test_missing_oauth_scope_for_roles_is_a_warning(runs: LocalRuns, meibo: Meibo) -> None:
    runs.configure([MEMBERS], [], acme=runs.tenant.limited_client(*(SCOPES - {ROLES_SCOPE})))

    result = meibo("check", "--json")

    assert result.status == 0
    assert by_name(result)[f"acme: {ROLES_SCOPE}"]["status"] == "warning"
    assert by_name(result)[f"acme: {ROLES_SCOPE}"]["detail"] == (
        "OAuth scope is missing, so the dataset members will not contain roles; grant it to include them"
    )


def test_only_the_oauth_scopes_of_configured_datasets_are_checked(runs: LocalRuns, meibo: Meibo) -> None:
    runs.configure([USERS], [], acme=runs.tenant.limited_client("read:users"))

    assert meibo("check").status == 0
    organization = next(iter(runs.tenant.organizations.ids()))
    runs.configure(
        [{**USERS, "organization_id": organization}], [], acme=runs.tenant.limited_client("read:users", client_id="two")
    )
    assert list(failed(meibo("check", "--json"))) == ["acme: read:organization_connections"]


def test_unknown_ids_are_named(runs: LocalRuns, meibo: Meibo) -> None:
    organization = next(iter(runs.tenant.organizations.ids()))
    connections = [FIRST_CONNECTION, "con_0000000000unknown"[:20]]
    organizations = [organization, "org_0000000000unknown"[:20]]
    runs.configure(
        [
            *({**USERS, "connection_id": connection_id} for connection_id in connections),
            *({**USERS, "organization_id": organization_id} for organization_id in organizations),
        ],
        [],
    )

    result = meibo("check", "--json")

    assert result.status == 1
    name = f"Auth0 ({runs.tenant.domain})"
    assert failed(result) == {
        f"acme: connection {connections[1]}": (
            f"{name} has no connection {connections[1]}; correct connection_id in the configuration"
        ),
        f"acme: organization {organizations[1]}": (
            f"{name} has no organization {organizations[1]}; correct organization_id in the configuration"
        ),
    }
    details = by_name(result)
    assert details[f"acme: connection {connections[0]}"]["detail"] == "exists"
    assert details[f"acme: organization {organization}"]["detail"].startswith("exists, with ")


def test_connection_is_not_checked_without_its_oauth_scope(runs: LocalRuns, meibo: Meibo) -> None:
    runs.configure([{**USERS, "connection_id": FIRST_CONNECTION}], [], acme=runs.tenant.limited_client("read:users"))

    result = meibo("check", "--json")

    assert result.status == 0
    assert by_name(result)[f"acme: connection {FIRST_CONNECTION}"]["status"] == "warning"
    assert "OAuth scope read:connections" in by_name(result)[f"acme: connection {FIRST_CONNECTION}"]["detail"]


@pytest.mark.parametrize(
    ("granted", "credentials", "message"),
    [
        (
            True,
            {"client_secret": "wrong"},
            "rejected the client id or the client secret (401, access_denied); correct them in the secret",
        ),
        (
            False,
            {},
            (
                "does not allow this application to use the Management API (403, access_denied); authorize it for the"
                " API and grant the OAuth scopes that the exports need"
            ),
        ),
    ],
    ids=["wrong secret", "not authorized"],
)
def test_rejected_token_request_is_explained(
    runs: LocalRuns, meibo: Meibo, granted: bool, credentials: Mapping[str, str], message: str
) -> None:
    runs.tenant.client.granted = granted
    runs.configure([USERS], [DIRECTORY], acme={**runs.tenant.credentials(), **credentials})

    result = meibo("check", "--json")

    assert result.status == 1
    assert failed(result) == {"acme: access token": f"Auth0 ({runs.tenant.domain}) {message}"}
    assert statuses(result)["acme: read:users"] == "skipped"
    assert statuses(result)["example: login"] == "ok"


def test_expected_run_follows_from_the_rate_limits(runs: LocalRuns, meibo: Meibo) -> None:
    runs.tenant.switches.rate_tier = "essentials"
    runs.configure([USERS, ORGANIZATIONS, MEMBERS], [])

    result = meibo("check", "--json")

    # 3 requests for the job, and for each of the other datasets a page of the list and a request per organization.
    # 10 requests per minute for each request of the burst: 50 a minute for lists and connections, 400 for members.
    check = by_name(result)["acme: expected run"]
    assert check["requests"] == 3 + 2 * (1 + 6)
    assert check["seconds"] == pytest.approx((2 + 6) * 60 / 50 + 6 * 60 / 400 + 3 * 0.1, rel=0.15)
    assert result.json()["expected_run"]["requests"] == check["requests"]
    assert re.fullmatch(
        r"at least 17 requests, about 1\d s at the tenant's rate limits \(requests per minute: enabled_connections 50,"
        r" organizations 50, members 400\), and the time in which Auth0 creates 1 file of users",
        check["detail"],
    )


def test_empty_tenant_is_checked(runs: LocalRuns, meibo: Meibo, monkeypatch: pytest.MonkeyPatch) -> None:
    for organization_id in list(runs.tenant.organizations.ids()):
        runs.tenant.organizations.remove(organization_id)
    runs.configure([ORGANIZATIONS, MEMBERS], [])

    result = meibo("check", "--json")

    assert result.status == 0, result.output
    assert by_name(result)["acme: read:organizations"]["detail"].endswith("; 0 organizations in the tenant")


# -- cybozu.com


@pytest.mark.parametrize("legacy", [False, True], ids=["401", "520"])
@pytest.mark.parametrize("language", ["ja", "en"])
@pytest.mark.parametrize("code", ["CB_WA01", "CB_XX99"])
@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (
            "locked",
            (
                "the account is locked after too many failed logins; wait until the lock ends, or change its password"
                " in cybozu.com administration and in the secret"
            ),
        ),
        (
            "password expired",
            "the password or the API token has expired; replace it in cybozu.com and in the secret",
        ),
    ],
)
def test_state_of_the_account_is_explained(
    runs: LocalRuns, meibo: Meibo, state: Any, reason: str, code: str, language: Any, legacy: bool
) -> None:
    switches = runs.domain.switches
    switches.legacy_auth_520, switches.language, switches.account_state_code = legacy, language, code
    runs.domain.account.state = state
    runs.configure([], [DIRECTORY])

    result = meibo("check", "--json")

    assert result.status == 1
    status = 520 if legacy else 401
    assert failed(result) == {
        "example: login": f"cybozu.com ({runs.domain.host}) rejected the login ({status}, {code}): {reason}"
    }
    assert statuses(result)["example: CSV files"] == "skipped"


@pytest.mark.parametrize("legacy", [False, True], ids=["401", "520"])
def test_wrong_password_is_tried_only_once(runs: LocalRuns, meibo: Meibo, legacy: bool) -> None:
    runs.domain.switches.legacy_auth_520 = legacy
    runs.configure([], [DIRECTORY, {**USERS, "format": "ndjson"}], example={"login": "hr-export", "password": "wrong"})

    result = meibo("check", "--json")

    assert failed(result) == {
        "example: login": f"cybozu.com ({runs.domain.host}) rejected the login ({520 if legacy else 401}, CB_WA01): the"
        " login name or the password is wrong; correct them in the secret before the next attempt, because failed"
        " logins lock the account"
    }
    # The first request tests the connection, without credentials.
    assert [request.path for request in runs.domain.requests] == ["/", "/v1/users.json"]


def test_user_who_is_not_an_administrator_is_reported(runs: LocalRuns, meibo: Meibo) -> None:
    runs.configure([], [DIRECTORY], example=runs.domain.plain_credentials())

    result = meibo("check", "--json")

    assert statuses(result)["example: login"] == "ok"
    assert failed(result) == {
        "example: CSV files": f"cybozu.com ({runs.domain.host}) rejected /v1/csv/title.csv (403, CB_NO02); use a"
        " cybozu.com Administrator (共通管理者) or an API token with read permission"
    }
    runs.configure([], [{**DIRECTORY, "format": "ndjson"}], example=runs.domain.plain_credentials())
    assert meibo("check").status == 0


def test_address_that_is_not_allowed_is_reported(runs: LocalRuns, meibo: Meibo) -> None:
    runs.domain.switches.allowed_ips = ("192.0.2.1",)
    runs.configure([], [DIRECTORY])

    assert failed(meibo("check", "--json")) == {
        "example: login": f"cybozu.com ({runs.domain.host}) rejected /v1/users.json before the login (403); add the IP"
        " addresses of Meibo to the IP addresses that the domain allows, or a client certificate to the secret"
    }


def test_missing_basic_credentials_are_reported(runs: LocalRuns, meibo: Meibo) -> None:
    credentials = runs.domain.credentials()
    runs.domain.switches.basic = ("gate", "keeper")
    runs.configure([], [DIRECTORY], example=credentials)

    assert failed(meibo("check", "--json")) == {
        "example: login": f"cybozu.com ({runs.domain.host}) rejected the request before the login (401); if the domain"
        ' uses Basic authentication, add "basic_user" and "basic_password" to the secret, else correct the login and'
        " password, or the API token, in the secret"
    }


def test_domain_without_csv_files_is_reported(runs: LocalRuns, meibo: Meibo) -> None:
    runs.domain.switches.csv_api = False
    runs.configure([], [DIRECTORY])

    (message,) = failed(meibo("check", "--json")).values()
    assert message.endswith('domains outside cybozu.com, such as kintone.com, have no CSV API: use "format": "ndjson"')


@pytest.mark.parametrize(("days", "status"), [(31, "ok"), (29, "warning"), (-1, "failed")])
def test_expiry_of_an_api_token_is_reported(runs: LocalRuns, meibo: Meibo, days: int, status: str) -> None:
    runs.configure([], [DIRECTORY], example=runs.domain.token_credentials(lifetime=days * 86_400 + 60))
    day = f"{datetime.now(UTC) + timedelta(days=days, minutes=1):%Y-%m-%d}"

    check = by_name(meibo("check", "--json"))["example: credentials"]

    assert check["status"] == status
    expires = f"API token that expires on {day}"
    details = {
        "ok": expires,
        "warning": f"{expires}; replace it before this date, because later runs fail",
        "failed": (
            f"secret: the API token expired on {day}; create a new API token in cybozu.com administration, and store"
            " it in the secret"
        ),
    }
    assert check["detail"] == details[status]


@pytest.mark.parametrize(("days", "status"), [(31, "ok"), (29, "warning"), (-1, "failed")])
def test_expiry_of_a_client_certificate_is_reported(runs: LocalRuns, meibo: Meibo, days: int, status: str) -> None:
    certificate = SecureAccess().issue("meibo", lifetime=timedelta(days=days, minutes=1))
    runs.configure([], [DIRECTORY], example={**runs.domain.credentials(), **certificate})

    result = meibo("check", "--json")

    assert statuses(result)["example: credentials"] == status
    day = f"{datetime.now(UTC) + timedelta(days=days, minutes=1):%Y-%m-%d}"
    assert day in by_name(result)["example: credentials"]["detail"]
    assert statuses(result)["example: DNS and TLS"] == "ok"


def test_selected_users_that_do_not_exist_are_counted(runs: LocalRuns, meibo: Meibo) -> None:
    users = runs.domain.expected_users()
    ids, codes = [user["id"] for user in users[1:4]], [user["code"] for user in users[1:3]]
    runs.configure([], [{**USERS, "format": "ndjson", "ids": [*ids, "999999"]}])

    by_ids = meibo("check", "--json")
    runs.configure([], [{**USERS, "format": "ndjson", "codes": codes}])
    by_codes = meibo("check", "--json")

    assert failed(by_ids) == {
        "example: users by ids": f"cybozu.com ({runs.domain.host}): expected a user for each of the 4 configured ids,"
        " found 3; correct ids in the configuration"
    }
    assert by_name(by_codes)["example: users by codes"]["detail"] == "found 2 users"


def test_requests_of_json_lists_are_estimated(runs: LocalRuns, meibo: Meibo) -> None:
    runs.configure([], [{**DIRECTORY, "format": "ndjson"}, {"dataset": "titles"}])

    check = by_name(meibo("check", "--json"))["example: expected run"]

    # A list of at most 100 rows has up to 2 pages: 2 for each of 3 lists, and for the members 200 organizations and
    # groups, 2 lists of them, and 4 pages of members. The titles are a file.
    assert check["requests"] == 3 * 2 + 200 + 2 + 4 + 1


# -- The network and the configuration


def test_host_name_that_does_not_resolve_is_reported(
    runs: LocalRuns, meibo: Meibo, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo

    def fail(host: str, *arguments: Any, **options: Any) -> Any:
        if host == "acme.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    runs.configure([USERS], [DIRECTORY])
    sources = runs.folder / "sources.json"
    sources.write_text(sources.read_text().replace(runs.tenant.domain, "acme.invalid"))

    result = meibo("check", "--json")

    assert result.status == 1
    assert failed(result) == {
        "acme: DNS and TLS": "Auth0 (acme.invalid) has a host name that does not resolve; check its spelling"
    }
    assert statuses(result)["acme: access token"] == "skipped"
    assert statuses(result)["example: login"] == "ok"


def test_certificate_that_is_not_trusted_is_reported(
    runs: LocalRuns, meibo: Meibo, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in runs.simulators.environment():
        monkeypatch.delenv(name)
    runs.configure([USERS], [DIRECTORY])

    result = meibo("check", "--json")

    message = "has a certificate that is not trusted here; check the host name"
    assert failed(result) == {
        "acme: DNS and TLS": f"Auth0 ({runs.tenant.domain}) {message}",
        "example: DNS and TLS": f"cybozu.com ({runs.domain.host}) {message}",
    }
    assert not runs.tenant.requests
    assert not runs.domain.requests


def test_host_that_refuses_connections_is_reported(runs: LocalRuns, meibo: Meibo) -> None:
    runs.configure([USERS], [])
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    sources = runs.folder / "sources.json"
    sources.write_text(sources.read_text().replace(runs.tenant.domain, f"localhost:{port}"))

    (message,) = failed(meibo("check", "--json")).values()

    assert message.startswith(f"Auth0 (localhost:{port}) did not return a response (")
    assert message.endswith("; check the host name, the port, and the firewall or proxy of this network")


def test_busy_provider_is_reported_in_time(runs: LocalRuns, meibo: Meibo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meibo_cli.commands.check.SOURCE_SECONDS", 6.5)
    runs.tenant.faults.add("GET /api/v2/*", faults.html(503), times=None)
    runs.configure([USERS, MEMBERS], [DIRECTORY])

    result = meibo("check", "--json")

    assert set(failed(result)) >= {"acme: read:users", "acme: read:organizations"}
    assert by_name(result)["acme: read:users"]["error"] == "ProviderBusyError"
    assert statuses(result)["example: login"] == "ok"


def test_missing_and_incomplete_credentials_are_reported_for_each_source(runs: LocalRuns, meibo: Meibo) -> None:
    runs.configure([USERS], [DIRECTORY])
    (runs.folder / ".env").write_text("MEIBO_EXAMPLE_LOGIN=hr-export\n")

    result = meibo("check", "--json")

    assert result.status == 1
    assert failed(result) == {
        "acme: credentials": "the source acme has no credentials: set client_id and client_secret, or client_id and"
        " private_key, each as MEIBO_ACME_<KEY>, in the environment or in .env, or store them in the Secrets Manager"
        " secret meibo/acme and set AWS_PROFILE and AWS_REGION",
        "example: credentials": 'secret: expected "password", or "api_token" instead of login and password, found'
        " neither",
    }
    # The connection does not depend on the credentials.
    assert statuses(result)["acme: DNS and TLS"] == statuses(result)["example: DNS and TLS"] == "ok"


def test_unreadable_configurations_are_reported_in_one_line(runs: LocalRuns, meibo: Meibo) -> None:
    missing = meibo("check")
    (runs.folder / "sources.json").write_text('{"sources": []}')
    invalid = meibo("check", "--json")
    both = meibo("check", "--sources", "sources.json", "--stack", "meibo")

    assert [result.status for result in (missing, invalid, both)] == [2, 2, 2]
    assert missing.errors == "--sources: the file sources.json does not exist; create it with `meibo init`\n"
    assert invalid.errors.startswith("invalid configuration: sources: ")
    assert both.errors == "--sources and --stack cannot be used together: the stack has its own configuration\n"
    assert (missing.output, invalid.output, both.output) == ("", "", "")


def test_interruption_is_one_line(runs: LocalRuns, meibo: Meibo, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("meibo.providers.auth0.checks.check_connection", interrupt)
    runs.configure([USERS], [])

    result = meibo("check")

    assert (result.status, result.output, result.errors) == (130, "", "interrupted\n")
