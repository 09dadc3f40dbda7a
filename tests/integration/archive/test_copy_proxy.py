"""The copy opens its connections through the proxy of the environment."""

from __future__ import annotations

import pytest

from meibo.archive.copy import CopyResult, LocationSource, copy
from meibo.errors import ConfigurationError
from meibo_simulators.proxy import SimulatedProxy
from tests.integration.archive.test_copy import PART, Bench, content_of
from tests.integration.archive.test_copy import bench as bench  # noqa: PLC0414  (a fixture)

CREDENTIALS = ("meibo", "p@ss:word")


def copy_through(proxy: str, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> CopyResult:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    return copy(LocationSource(bench.source.location), bench.target, options=bench.options)


def test_parts_are_downloaded_and_uploaded_through_the_proxy(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    data = content_of(3 * PART)
    bench.serve(data)

    with SimulatedProxy(credentials=CREDENTIALS) as proxy:
        result = copy_through(proxy.url, bench, monkeypatch)

    bench.check(result, data)


@pytest.mark.parametrize("credentials", ["", "meibo:wrong@"])
def test_rejected_credentials_of_the_proxy_are_not_retried(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, credentials: str
) -> None:
    file = bench.serve(content_of(3 * PART))

    with (
        SimulatedProxy(credentials=CREDENTIALS) as proxy,
        pytest.raises(ConfigurationError, match=r"^localhost cannot be reached: the proxy rejected its credentials"),
    ):
        copy_through(f"http://{credentials}{proxy.address}", bench, monkeypatch)

    assert not file.requests
