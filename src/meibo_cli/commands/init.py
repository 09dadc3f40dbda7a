"""``meibo init``: write a configuration and a file for its credentials."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer

from meibo.configuration import Configuration, configuration_schema, parse_configuration
from meibo.errors import ConfigurationError
from meibo.providers import all_providers
from meibo.providers import provider as find_provider
from meibo.providers.base import SourceSetup
from meibo_cli.files import new_file
from meibo_cli.sources import ENV_FILE, SOURCES_FILE, variable_prefix

SECRET_PREFIX: Final = "meibo/"  # noqa: S105  # the default of the template's parameter SecretPrefix, not a secret

T = TypeVar("T")


def init(
    *,
    sources: Annotated[
        Path,
        typer.Option(
            "--sources", "-s", help="The new configuration. Its JSON schema and .env are written to the same folder."
        ),
    ] = Path(SOURCES_FILE),
    provider: Annotated[
        str, typer.Option("--provider", help="The provider: auth0 or cybozu.", show_default=False)
    ] = "",
    domain: Annotated[
        str,
        typer.Option(
            "--domain", help="The domain: acme.jp.auth0.com, or https://example.cybozu.com.", show_default=False
        ),
    ] = "",
    name: Annotated[
        str,
        typer.Option(
            "--name", help="The name of the source. Default: the first part of the domain.", show_default=False
        ),
    ] = "",
    dataset: Annotated[
        list[str] | None, typer.Option("--dataset", help="A dataset to archive, such as users. Repeatable.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not prompt: use the options and the defaults.")] = False,
) -> None:
    """Write a configuration (sources.json) and a file for its credentials (.env).

    The command prompts for values that are not specified as options. It does not change existing files. The file .env
    contains the names of the variables: enter the values, and test them with `meibo check`.
    """
    files = [sources, sources.with_suffix(".schema.json"), sources.parent / ENV_FILE]
    for path in files:
        if path.exists():
            raise ConfigurationError(
                f"{path} already exists and is not overwritten; remove it, or choose another folder with --sources"
            )
    interview = Interview(
        {"provider": provider, "domain": domain, "name": name, "dataset": ",".join(dataset or [])}, ask=not yes
    )
    document = {"$schema": f"./{files[1].name}", "sources": interview.sources()}
    schema = json.dumps(configuration_schema(), indent=2, ensure_ascii=False)
    texts = [json.dumps(document, indent=2), schema, env_text(parse_configuration(json.dumps(document)))]
    _write_all(dict(zip(files, texts, strict=True)))
    typer.echo(f"wrote {', '.join(map(str, files))}")
    typer.echo(f"next: enter the credentials in {files[-1]}, then run `meibo check`")


def env_text(configuration: Configuration) -> str:
    """Return the text of ``.env`` with the variables of a configuration. Optional variables are commented out."""
    parts = ["# Credentials of the sources for `meibo run` and `meibo check`. Do not commit this file.\n"]
    for source in configuration.sources:
        source_provider = find_provider(source.provider)
        first, *others = source_provider.required_credentials
        alternatives = ", or ".join(" and ".join(keys) for keys in (first, *others))
        parts.append(f"\n# {source.name} ({source_provider.title}): {alternatives}\n")
        for key in (*first, *(key for key in source_provider.credential_keys if key not in first)):
            comment = "" if key in first else "# "
            parts.append(f"{comment}{variable_prefix(source.name)}{key.upper()}=\n")
    return "".join(parts)


@dataclass
class Interview:
    """The questions about the sources. A question is asked only if its option is not specified and ``ask`` is true."""

    options: Mapping[str, str]
    ask: bool
    _sources: list[dict[str, Any]] = field(default_factory=list)

    def sources(self) -> list[dict[str, Any]]:
        """Ask for sources until the user adds no more, and return them in the form of the configuration file."""
        while True:
            self._sources.append(self._source())
            if not self.ask or not typer.confirm("add another source?", err=True):
                return self._sources
            self.options = {}

    def _source(self) -> dict[str, Any]:
        setups = {known.name: known.setup for known in all_providers() if known.setup is not None}
        name = self._answer(f"provider ({', '.join(setups)})", "provider", None, lambda text: _one_of(text, setups))
        setup = setups[name]
        question = f"{setup.endpoint}, such as {setup.endpoint_example}"

        def source(endpoint: str, source_name: str = "new", choices: Sequence[str] = setup.default) -> dict[str, Any]:
            document = {
                "provider": name,
                "name": source_name,
                setup.endpoint: endpoint,
                "secret": f"{SECRET_PREFIX}{source_name}",
                "exports": [setup.entry(choice, endpoint) for choice in choices],
            }
            _validate([*self._sources, document])
            return document

        endpoint = self._answer(question, "domain", None, lambda text: source(setup.normalize(text))[setup.endpoint])
        default = _name_of(endpoint)
        source_name = self._answer("name of the source", "name", default, lambda text: source(endpoint, text)["name"])
        question = f"datasets to archive ({', '.join(setup.choices)})"
        return self._answer(
            question,
            "dataset",
            ", ".join(setup.default),
            lambda text: source(endpoint, source_name, _choices(text, setup)),
        )

    def _answer(self, question: str, option: str, default: str | None, parse: Callable[[str], T]) -> T:
        """Return the value of an option, the default, or the first valid answer to a question."""
        given = self.options.get(option, "")
        if given or not self.ask:
            if not given and default is None:
                raise ConfigurationError(f"--yes requires --{option}")
            try:
                return parse(given or default or "")
            except ConfigurationError as error:
                raise ConfigurationError(f"--{option}: {error}") from None

        def value(text: str) -> T:
            try:
                return parse(text)
            except ConfigurationError as error:
                raise typer.BadParameter(str(error)) from None

        answer: T = typer.prompt(question, default=default, value_proc=value, err=True)
        return answer


def _validate(sources: Sequence[Mapping[str, Any]]) -> None:
    """Raise a ConfigurationError with the first error in the last source if the sources are not valid."""
    try:
        parse_configuration(json.dumps({"sources": sources}))
    except ConfigurationError as error:
        fault = error.detail.partition("; ")[0]
        raise ConfigurationError(fault.replace(f"sources[{len(sources) - 1}].", "")) from None


def _one_of(text: str, choices: Mapping[str, Any]) -> str:
    if text in choices:
        return text
    raise ConfigurationError(f"expected {' or '.join(choices)}, found {text!r}")


def _choices(text: str, setup: SourceSetup) -> list[str]:
    names = list(dict.fromkeys(re.split(r"[\s,]+", text.strip(", "))))
    for name in names:
        if name not in setup.choices:
            raise ConfigurationError(f"expected one or more of {', '.join(setup.choices)}, found {name!r}")
    return names


def _name_of(endpoint: str) -> str:
    """Return the first label of a host name or URL as the name of a source."""
    label = endpoint.removeprefix("https://").partition(".")[0].lower()
    return re.sub(r"[^a-z0-9-]+", "-", label).strip("-") or "source"


def _write_all(texts: Mapping[Path, str]) -> None:
    """Write all files, or none of them."""
    written: list[Path] = []
    try:
        for path, text in texts.items():
            with new_file(path) as file:
                file.write(f"{text.rstrip()}\n".encode())
            written.append(path)
    except BaseException:
        for path in written:
            path.unlink()
        raise
