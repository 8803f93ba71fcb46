"""Options of a command -> settings. They become a document as a TOML file has it, so that one check serves both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from builder.commands.options import HEAD_SETTINGS, SETTINGS, WHOLE
from builder.settings.config import BuildConfig, read_document
from builder.settings.heads import HeadConfig
from builder.settings.model import Instance, read_settings
from builder.settings.reference import Setting, settings_of
from builder.support.errors import ConfigError


def build_config(path: Path | None, heads: tuple[str, ...], options: Mapping[str, Any]) -> BuildConfig:
    """The settings of a build.

    Args:
        path: The TOML file; None uses the options alone.
        heads: ``NAME=MODEL`` for each head that the options add.
        options: The values of the options, by the key of the setting; they override the file.

    Raises:
        ConfigError: A setting is wrong.
    """
    document = {} if path is None else read_document(path)
    if heads and "heads" in document:
        raise ConfigError("heads are given both in the TOML file and by --head; expected only one of them")
    if heads or path is None:
        document["heads"] = {name: {"model": Path(model)} for name, model in pairs(heads, "--head", "NAME=MODEL").items()}
    said: set[str] = set()
    for key, value in options.items():
        if value is not None and value != ():
            _say(document, key.replace("__", "."), value, said)
    return BuildConfig.from_document(document, path, lambda key: _spelled(key, said, everything=path is None))


def _say(document: dict[str, Any], key: str, value: Any, said: set[str]) -> None:
    """Put the value of one option into the document."""
    tables = document["heads"] if isinstance(document.get("heads"), dict) else {}
    own = of_each(value, list(tables), _spelled(key)) if isinstance(value, tuple) else {}
    everywhere = value if not isinstance(value, tuple) else own.pop("", None)
    for name, text in own.items():
        _put(tables, f"{name}.{key}", parsed(text, HEAD_SETTINGS[key]))
        said.add(f"heads.{name}.{key}")
    if everywhere is None:
        return
    if key in SETTINGS:
        _put(document, key, parsed(everywhere, SETTINGS[key]))
        said.add(key)
        return
    for name in tables:
        if name not in own:
            _put(tables, f"{name}.{key}", parsed(everywhere, HEAD_SETTINGS[key]))
            said.add(f"heads.{name}.{key}")


def _put(document: dict[str, Any], key: str, value: Any) -> None:
    """Put a value into a table of the document. What is no table stays, and the check of the settings names it."""
    table, _, rest = key.partition(".")
    if not rest:
        document[key] = value
    elif isinstance(inside := document.setdefault(table, {}), dict):
        _put(inside, rest, value)


def parsed(text: Any, setting: Setting) -> Any:
    """The text of an option as a TOML file would have it. Text that cannot be read stays for the settings to refuse."""
    kinds = setting.types
    if Path in kinds and isinstance(text, str):
        return Path(text)
    if isinstance(text, str) and not setting.choices and (float in kinds or int in kinds) and setting.table is None:
        try:
            return float(text) if float in kinds else int(text)
        except ValueError:
            return text
    return text


def of_each(values: tuple[str, ...], names: list[str], option: str) -> dict[str, str]:
    """The value of an option for each name in ``NAME=VALUE``; under the empty name, the last plain ``VALUE``."""
    own = pairs(tuple(value for value in values if "=" in value), option)
    unknown = sorted(set(own) - set(names))
    if unknown:
        raise ConfigError(f"{option} {unknown[0]}: no such name; there are: {', '.join(names) or 'none'}")
    plain = [value for value in values if "=" not in value]
    return {**own, **({"": plain[-1]} if plain else {})}


def _spelled(key: str, said: set[str] | None = None, *, everything: bool = False) -> str:
    """A key as the user wrote it: ``--size cats`` where it came from an option, or there is no file."""
    if said is not None and not everything and not any(key == known or key.startswith(f"{known}.") for known in said):
        return key
    parts = key.split(".")
    if parts[0] == "heads" and len(parts) > 2:
        return f"--{parts[2].replace('_', '-')} {parts[1]}"
    return f"--{WHOLE.get(key, parts[0] if parts[0] in WHOLE else key).replace('.', '-').replace('_', '-')}"


def chosen(cls: type[Instance], **options: Any) -> Instance:
    """Make a class of settings from options; the others keep their defaults. Raises ``ConfigError``."""
    known = settings_of(cls)
    said = {key: parsed(value, known[key]) for key, value in options.items() if value is not None}
    return read_settings(cls, said, named=_spelled)


OF_EACH = ("preprocessing", "size", "resize")  # the settings of models that are only read


def each_model(paths: Sequence[Path], options: Mapping[str, tuple[str, ...]]) -> list[HeadConfig]:
    """The settings of models that are only read, from the options for each. Raises ``ConfigError``."""
    names = _model_names(paths)
    said = {key: of_each(values, names, f"--{key}") for key, values in options.items()}
    found = []
    for name, path in zip(names, paths, strict=True):
        own = {key: each.get(name, each.get("")) for key, each in said.items()}
        document = {key: parsed(value, HEAD_SETTINGS[key]) for key, value in own.items() if value is not None}
        spelled = {key: f"--{key} {name}" for key in own}
        found.append(read_settings(HeadConfig, {"name": "model", "model": path, **document}, named=spelled.__getitem__))
    return found


def _model_names(paths: Sequence[Path]) -> list[str]:
    """The stem of each path; the name of its folder where several have the same stem, as ``keras_model.h5``."""
    stems = [path.stem for path in paths]
    return [path.resolve().parent.name if stems.count(path.stem) > 1 else path.stem for path in paths]


def head_config(name: str, model: str, options: dict[str, Any]) -> HeadConfig:
    """The settings of one head; its values are removed from ``options``. Raises ``ConfigError``.

    ``NAME=`` in front of a value, which a build needs, says nothing here.
    """
    given = {key: options.pop(key) for key in HEAD_SETTINGS if key in options}
    values = {key: value.removeprefix(f"{name}=") for key, value in given.items() if value is not None}
    document = {key: parsed(value, HEAD_SETTINGS[key]) for key, value in values.items()}
    return read_settings(HeadConfig, {"name": name, "model": Path(model), **document}, named=_spelled)


def pairs(values: tuple[str, ...], option: str, form: str = "NAME=VALUE") -> dict[str, str]:
    """The two sides of each ``NAME=VALUE``. ``form``: how a message calls them. Raises ``ConfigError``."""
    found: dict[str, str] = {}
    for value in values:
        name, separator, rest = value.partition("=")
        if not separator or not rest:
            raise ConfigError(f"{option} {value}: expected {form}")
        if name in found:
            raise ConfigError(f"{option} {name} is given twice; expected a different name for each head")
        found[name] = rest
    return found


def pair(text: str, form: str) -> tuple[str, str]:
    """The two sides of an argument of the form ``NAME=VALUE``. Raises ``ConfigError``."""
    ((name, value),) = pairs((text,), "the argument", form).items()
    return name, value
