"""No message gives a share of zero samples or advises something that is not available."""

from __future__ import annotations

import ast
import itertools
import math
import re
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest

keras = pytest.importorskip("keras")

import builder  # noqa: E402
import edge_runtime  # noqa: E402
from builder.commands.cli import main as builder_commands  # noqa: E402
from builder.judging.verify import HeadQuality, wilson_interval  # noqa: E402
from builder.merging.inspection import inspect, print_tree  # noqa: E402
from builder.reporting.verdicts import caption, marked_agreement, reason_of_failure  # noqa: E402
from builder.reporting.words import decibels, milliseconds  # noqa: E402
from builder.settings.heads import HeadConfig  # noqa: E402
from builder.settings.input_scaling import PREPROCESSING  # noqa: E402
from edge_runtime.cli import main as runtime_commands  # noqa: E402
from tests.tiny_models import seed_weights  # noqa: E402

# A count of nothing, or a number that is none. What was measured may be 0.0 %.
OF_NOTHING = re.compile(
    r"\b(?:nan|inf|None)\b|(?<![\d.,])0 (?:of|held-out|layers|operators|parameters|pictures|texts|weights|heads|shared)\b"
    r"|\bof(?: all| the)? 0\b"
)


def assert_of_something(text: str) -> None:
    assert text
    assert not OF_NOTHING.search(text), text


@pytest.mark.parametrize("text", ["0 operators agree on 0.0 %", "nan dB", "90.0% of the 0 pictures", "None layers"])
def test_a_message_of_nothing_is_found(text: str) -> None:
    with pytest.raises(AssertionError):
        assert_of_something(text)


def qualities() -> Iterator[HeadQuality]:
    for count, share, own, decided in itertools.product((1, 7, 200), (0.0, 0.5, 1.0), (True, False), (0.0, 0.4, 1.0)):
        right, sure = round(share * count), math.floor(decided * count)
        drift = (1 - share) / 2
        yield HeadQuality(
            "a", count, right / count, wilson_interval(right, count), drift, drift, (), (), own_pictures=own,
            decided=0 if own else sure, decided_agreement=share if sure and not own else 1.0,
        )  # fmt: skip


@pytest.mark.parametrize("noun", ["pictures", "texts"])
def test_messages_of_what_was_verified(noun: str) -> None:
    for quality, by_name in itertools.product(qualities(), (False, True)):
        for precision in ("int8", "float"):
            assert_of_something(reason_of_failure(quality, 0.97, noun, precision=precision, chosen_by_name=by_name))
        assert_of_something(marked_agreement(quality, 0.97))
        for line in caption([quality, quality], 0.97, noun):
            assert_of_something(line)


@pytest.mark.parametrize("ratio", [20.0, 0.0, -3.0, math.inf, -math.inf])
def test_messages_of_a_signal_without_noise(ratio: float) -> None:
    assert_of_something(decibels(ratio))


@pytest.mark.parametrize(
    ("duration", "said"), [(63.2, "63.20 ms"), (0.1, "0.10 ms"), (0.00312, "0.0031 ms"), (0.0, "0 ms")]
)
def test_a_latency_that_is_not_0_is_not_said_to_be_0(duration: float, said: str) -> None:
    assert milliseconds(duration) == said


FIRSTS = {"same": 1, "other": 2}  # the seed of the first layer
ENDS = ("dense", "two", "none")


def network(path: Path, first: str, end: str, seed: int) -> HeadConfig:
    layers = keras.layers
    image = keras.Input((12, 12, 3))
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(image)
    pooled = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(5, activation="relu", name="hidden")(pooled) if end == "two" else pooled
    x = layers.Softmax(name="soft")(x) if end == "none" else layers.Dense(4, activation="softmax", name="end")(x)
    model = keras.Model(image, x)
    seed_weights(model, seed)
    conv = model.get_layer("conv")
    rng = np.random.default_rng(FIRSTS[first])
    conv.set_weights([rng.normal(0, 0.3, w.shape) for w in conv.get_weights()])
    model.save(path)
    return HeadConfig(path.stem, path, preprocessing=PREPROCESSING["unit"])


def test_messages_of_what_is_shared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = [
        network(tmp_path / f"{first}_{end}.keras", first, end, seed)
        for seed, (first, end) in enumerate(itertools.product(FIRSTS, ENDS))
    ]
    for chosen in [[model] for model in models] + [list(pair) for pair in itertools.combinations(models, 2)]:
        print_tree(inspect(chosen))
        assert_of_something(capsys.readouterr().out)


def offered(command: click.Command, name: str) -> tuple[set[str], set[str]]:
    """The options and the commands of a group."""
    options = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
    names = {name}
    if isinstance(command, click.Group):
        context = click.Context(command)
        for inner in command.list_commands(context):
            more, deeper = offered(command.get_command(context, inner) or command, f"{name} {inner}")
            options, names = options | more, names | deeper
    return options, names


OTHERS = {"--no-", "--system-site-packages", "--list-cameras"}  # a prefix, and two of programs of others


def test_no_message_offers_an_option_or_a_command_that_is_not_there() -> None:
    (options, names), (more, deeper) = offered(builder_commands, "builder"), offered(runtime_commands, "edge-runtime")
    options, names = options | more | OTHERS | {"--help"}, names | deeper
    for package in (builder, edge_runtime):
        for path in Path(str(package.__file__)).parent.rglob("*.py"):
            for text in strings(ast.parse(path.read_text(encoding="utf-8"))):
                assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) <= options, f"{path}: {text}"
                told = re.findall(r"`((?:builder|edge-runtime) [a-z-]+)", text)
                assert set(told) <= names, f"{path}: {text}"


def strings(tree: ast.AST) -> Iterator[str]:
    return (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
