"""The copy opens its connections through the proxy of the environment."""

from __future__ import annotations

import pytest

from meibo.archive.copy import CopyResult, LocationSource, copy
from meibo.errors import ConfigurationError
from tests.integration.archive.test_copy import PART, Bench, content_of
from tests.integration.archive.test_copy import bench as bench  # noqa: PLC0414  (a fixture)
from tests.support.proxies import PASSWORD, USER, running_proxy


def copy_through(proxy: str, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> CopyResult:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    return copy(LocationSource(bench.source.location), bench.target, options=bench.options)


def test_parts_are_downloaded_and_uploaded_through_the_proxy(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    data = content_of(3 * PART)
    bench.serve(data)

    with running_proxy("--basic-auth", f"{USER}:{PASSWORD}") as proxy:
        result = copy_through(f"http://{USER}:p%40ss%3Aword@{proxy}", bench, monkeypatch)

    bench.check(result, data)


@pytest.mark.parametrize("credentials", ["", "meibo:wrong@"])
def test_rejected_credentials_of_the_proxy_are_not_retried(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, credentials: str
) -> None:
    file = bench.serve(content_of(3 * PART))

    with (
        running_proxy("--basic-auth", f"{USER}:{PASSWORD}") as proxy,
        pytest.raises(ConfigurationError, match=r"^localhost cannot be reached: the proxy rejected its credentials"),
    ):
        copy_through(f"http://{credentials}{proxy}", bench, monkeypatch)

    assert not file.requests
