"""The registry of providers. No other module contains a list of providers."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Final

from meibo.errors import EventError
from meibo.providers.base import Provider
from meibo.providers.datasets import Dataset

# The classes of the providers. They are imported on first use, so that a function imports only the providers it uses.
PROVIDERS: Final[dict[str, str | Provider]] = {
    "auth0": "meibo.providers.auth0.provider:Auth0Provider",
    "cybozu": "meibo.providers.cybozu.provider:CybozuProvider",
}


def provider(name: str) -> Provider:
    """Return a provider by its name, raising EventError if it is not registered."""
    registered = PROVIDERS.get(name)
    if registered is None:
        raise EventError(f"provider: expected {' or '.join(map(repr, PROVIDERS))}, found {name[:40]!r}")
    if isinstance(registered, str):
        module, _, class_name = registered.partition(":")
        registered = PROVIDERS[name] = getattr(importlib.import_module(module), class_name)()
    return registered


def clear_clients() -> None:
    """Remove the cached clients. Tests and the local system call this function after credentials change."""
    for registered in PROVIDERS.values():
        if isinstance(registered, Provider):
            registered.clear_clients()


def all_providers() -> list[Provider]:
    """Return all registered providers in the order of registration."""
    return [provider(name) for name in list(PROVIDERS)]


def find_dataset(provider_name: str, dataset_name: str) -> Dataset:
    """Return a dataset, or a dataset with default properties if it is unknown to this version of Meibo."""
    try:
        return provider(provider_name).dataset(dataset_name)
    except EventError:
        return Dataset(name=dataset_name, formats=("ndjson", "csv"), reading="stream")


def column_names(name: str, dataset: str, format: str, request: Mapping[str, Any]) -> Mapping[str, str]:  # noqa: A002  # the term of the configuration
    """Return the column names in the file of an export. See ``Provider.column_names``."""
    return provider(name).column_names(dataset, format, request) if name in PROVIDERS else {}


def provider_title(name: str) -> str:
    """Return the display name of a provider, or ``name`` if the provider is unknown to this version of Meibo."""
    return provider(name).title if name in PROVIDERS else name
