"""A TOML file and options become one config, or an error of one line."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from builder.commands import building, cli
from builder.commands.chosen import head_config
from builder.commands.options import HEAD_SETTINGS, SETTINGS
from builder.reporting.identity import built_at, source_digest
from builder.settings.config import BuildConfig, JointConfig
from builder.settings.heads import HeadConfig, ResizeConfig, TextConfig
from builder.settings.input_scaling import PREPROCESSING
from builder.settings.reference import Setting, all_settings
from builder.settings.targets import TARGETS
from builder.support.errors import ConfigError
from tests.fuzz_readers import TOML, toml_value

GOOD = """
output = "out/all.tflite"
calibration_data = "pictures"
[heads.cats]
model = "cats.keras"
preprocessing = "tf"
[heads.dogs]
model = "../dogs.h5"
labels = ["a", "b"]
"""


def read(tmp_path: Path, text: str) -> BuildConfig:
    (tmp_path / "mine.toml").write_text(text)
    return BuildConfig.from_toml(tmp_path / "mine.toml")


def test_paths_are_relative_to_the_file_and_heads_keep_their_order(tmp_path: Path) -> None:
    config = read(tmp_path, GOOD)
    assert config.output == tmp_path / "out/all.tflite"
    assert [h.name for h in config.heads] == ["cats", "dogs"]
    assert config.heads[0] == HeadConfig("cats", tmp_path / "cats.keras", None, PREPROCESSING["tf"])
    assert config.heads[1].model == tmp_path.parent / "dogs.h5"
    assert config.heads[1].labels == ("a", "b")
    assert (config.min_agreement, config.rounding, config.report_folder) == (0.97, "learnt", tmp_path / "out/all.report")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('output = "out/all.tflite"', "", "output: expected a path, found nothing"),
        ('calibration_data = "pictures"', "calibration_data = 3", "calibration_data: expected a path"),
        ('calibration_data = "pictures"', 'precision = "int8"', "precision int8 needs calibration_data, a folder"),
        ('calibration_data = "pictures"', 'precision = "mixed"', "precision mixed needs calibration_data, a folder"),
        ('calibration_data = "pictures"', 'algorithm = "tensorflow"', "precision int8 by tensorflow needs"),
        ('calibration_data = "pictures"', 'verification_data = "v"', "verification_data needs calibration_data"),
        ('calibration_data = "pictures"', "joint = { enabled = true }", "the joint list needs calibration_data"),
        ("calibration_data", "calibration_dta", "unknown key 'calibration_dta'; did you mean 'calibration_data'?"),
        ('preprocessing = "tf"', 'preprocesing = "tf"', r"unknown key 'heads\.cats\.preprocesing'; did you mean"),
        ('preprocessing = "tf"', 'preprocessing = "imagenet"', r"heads\.cats\.preprocessing: expected one of raw"),
        ("[heads.dogs]", "[heads.Dogs]", "head name 'Dogs': expected small letters"),
        ("[heads.dogs]", "[heads.joint]", "head name 'joint' is taken"),
        ("[heads.dogs]", "[heads.backbone]", "head name 'backbone' is taken"),
        ("[heads.dogs]", "[heads.serving_default]", "is taken"),
        ("[heads.dogs]", "[heads.cats]", "not a TOML file"),
        ('labels = ["a", "b"]', "labels = 3", r"heads\.dogs\.labels: expected a file's name or a list"),
        ('labels = ["a", "b"]', 'labels = ["a", 1]', r"heads\.dogs\.labels"),
        ('model = "cats.keras"', "model = 3", r"heads\.cats\.model: expected a path, found 3"),
        ('output = "out/all.tflite"', 'output = "o"\nmin_agreement = 97', "expected a number from 0 to 1"),
        ('output = "out/all.tflite"', 'output = "o"\nmin_agreement = "high"', "min_agreement"),
        ('output = "out/all.tflite"', 'output = "o"\nrounding = "best"', "rounding: expected one of learnt, bias"),
        ('output = "out/all.tflite"', 'output = "o"\nprecision = "int4"', "precision: expected one of auto, int8"),
        ('output = "out/all.tflite"', 'output = "o"\nalgorithm = "best"', "algorithm: expected one of polyhead,"),
        (
            'output = "out/all.tflite"',
            'output = "o"\nalgorithm = "tensorflow"\nprecision = "int16"',
            "algorithm tensorflow makes int8 only, found precision 'int16'",
        ),
        ('output = "out/all.tflite"', 'output = "o"\nrefit = "no"', "refit: expected true or false, found 'no'"),
        ('output = "out/all.tflite"', 'output = "o"\nranges = "all"', "ranges: expected one of minmax, percentile"),
        ('output = "out/all.tflite"', 'output = "o"\nequalize = "yes"', "equalize: expected true or false"),
        ('output = "out/all.tflite"', 'output = "o"\nresize = {fit = "zoom"}', "resize.fit: expected one of"),
        ('output = "out/all.tflite"', 'output = "o"\nresize = 3', "resize: expected a table"),
        (
            'output = "out/all.tflite"',
            'output = "o"\nresize = {method = "bicubic", antialias = false}',
            "bicubic without antialiasing",
        ),
        ('output = "out/all.tflite"', 'output = "o', "not a TOML file"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError, match=words) as error:
        read(tmp_path, GOOD.replace(old, new, 1))
    assert "mine.toml" in str(error.value)


def test_no_heads_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="heads"):
        read(tmp_path, 'output = "a"\ncalibration_data = "b"')
    with pytest.raises(ConfigError, match="no heads"):
        read(tmp_path, 'output = "a"\ncalibration_data = "b"\n[heads]')


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: No such file"):
        BuildConfig.from_toml(tmp_path / "none.toml")


def test_a_precision_keeps_its_former_name(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('output = "o"\ncalibration_data = "d"\nprecision = "islands"\n[heads.a]\nmodel = "a.keras"\n')
    assert BuildConfig.from_toml(path).precision == "mixed"


def test_everything_wrong_is_named_at_once(tmp_path: Path) -> None:
    text = GOOD + 'preprocessing = "x"\nmodle = 1\n[resize]\nfit = 1\n[joint]\nfalse_alarm = 2\n[heads.Cats]\nmodel = 3\n'
    with pytest.raises(ConfigError) as error:
        read(
            tmp_path,
            text.replace('calibration_data = "pictures"', "calibration_data = 3\ntarget = ['coral']\nmax_steps = 1.5"),
        )
    lines = str(error.value).splitlines()
    for part in (
        "calibration_data: expected a path, found 3",
        f"target: expected one of {', '.join(TARGETS)}, found ['coral']",
        "max_steps: expected a whole number from 1 and below 1,000,000, found 1.5",
        "heads.dogs.preprocessing: expected one of raw",
        "unknown key 'heads.dogs.modle'; did you mean 'model'?",
        "resize.fit: expected one of stretch, crop, pad, found 1",
        "joint.false_alarm: expected a number above 0 and below 0.5, found 2",
        "heads.Cats.model: expected a path, found 3",
    ):
        assert len([line for line in lines if part in line and "mine.toml" in line]) == 1, part


@pytest.mark.parametrize(
    "odd", [[], {}, [[]], ["coral"], {"a": 1}, float("nan"), 10**5000, "\0", -1, [True]], ids=range(10)
)
def test_no_value_of_any_key_ends_otherwise_than_in_a_config_error(odd: Any) -> None:
    """A value is valid, or it is a config error, and never a TypeError from hashing or comparing it."""
    for key, _ in all_settings(BuildConfig):
        document = {"output": "o", "calibration_data": "c", "heads": {"NAME": {"model": "m"}}}
        table: dict[str, Any] = document
        for part in key.split(".")[:-1]:
            table = table.setdefault(part, {"vocabulary": "v"} if part == "text" else {})
        table[key.rpartition(".")[2]] = odd
        try:
            BuildConfig.from_document(document)
        except ConfigError as error:
            assert str(error)


def test_settings_made_in_python_are_checked_too() -> None:
    head = HeadConfig("a", Path("a.keras"), size=224, resize="lanczos,crop")  # type: ignore[arg-type]
    config = BuildConfig(Path("o"), Path("c"), (head,))
    assert (head.size, head.resize) == ((224, 224), ResizeConfig("lanczos", fit="crop"))
    for make in (
        lambda: HeadConfig("Dogs", Path("d")),
        lambda: BuildConfig(Path("o"), Path("c"), (head, head)),
        lambda: BuildConfig(Path("o"), Path("c"), ()),
        lambda: replace(config, tolerance=1),
        lambda: replace(config, precision=3),
        lambda: JointConfig(false_alarm=0.5),
        lambda: TextConfig(Path("v"), ngrams=(17,)),
    ):
        with pytest.raises(ConfigError):
            make()
    with pytest.raises(FrozenInstanceError):
        config.output = Path("other")  # type: ignore[misc]


def test_the_least_agreement_of_a_head_is_its_own_or_the_builds(tmp_path: Path) -> None:
    config = read(tmp_path, "min_agreement = 0.9\n" + GOOD + "min_agreement = 0.8\n")
    assert [config.least_agreement(name) for name in ("cats", "dogs")] == [0.9, 0.8]


SAID: dict[Any, tuple[str, Any]] = {  # as an option has it, as a TOML file has it: of a key, or of a type
    "size": ("64,96", [64, 96]), "resize": ("crop,area", {"fit": "crop", "method": "area"}),
    "preprocessing": ("0.5,-1", {"scale": 0.5, "offset": -1.0}), "text.ngrams": ("2", [1, 2]),
    Path: ("some/where", "some/where"), float: ("0.005", 0.005), int: ("7", 7), str: ("word", "word"),
}  # fmt: skip
FILES = {"output": "o", "calibration_data": "c"}
OPTIONS = [key for key in SETTINGS if not key.startswith("resize.") and key not in ("joint", "text")]


def said(key: str, setting: Setting) -> tuple[list[str], Any]:
    """An option that says something else than the default, and the value of the key."""
    name = {"joint.enabled": "joint"}.get(key, key.replace(".", "-").replace("_", "-"))
    if bool in setting.types:
        return [f"--no-{name}" if setting.default else f"--{name}"], not setting.default
    kinds = (key, *setting.types)
    word, value = (setting.choices[-1],) * 2 if setting.choices else next(SAID[kind] for kind in kinds if kind in SAID)
    return [f"--{name}", word], value


@pytest.fixture
def chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The settings that result from a command line of build."""
    monkeypatch.chdir(tmp_path)
    found: list[BuildConfig] = []
    monkeypatch.setattr(building, "run_build", lambda settings, **_: found.append(settings))

    def run(*arguments: str) -> BuildConfig:
        done = CliRunner().invoke(cli.main, ["build", *arguments])
        assert done.exit_code == 0, done.output
        return found[-1]

    return run


@pytest.mark.parametrize("key", OPTIONS)
def test_an_option_says_what_its_key_says(chosen: Any, key: str) -> None:
    option, value = said(key, SETTINGS[key])
    document: dict[str, Any] = {**FILES, "heads": {"a": {"model": "m"}, "b": {"model": "n"}}}
    given = {"--output": "o", "--calibration-data": "c"}
    if key.startswith("text."):
        document["text"], given["--text-vocabulary"] = {"vocabulary": "v"}, "v"
    table, _, rest = key.partition(".")
    (document.setdefault(table, {}) if rest else document).update({rest or table: value})
    others = [part for flag, word in given.items() if flag != option[0] for part in (flag, word)]
    assert chosen("--head", "a=m", "--head", "b=n", *others, *option) == BuildConfig.from_document(document)


@pytest.mark.parametrize("key", HEAD_SETTINGS)
def test_an_option_says_what_the_key_of_one_head_says(chosen: Any, key: str) -> None:
    (flag, word), value = said(key, HEAD_SETTINGS[key])
    heads = {"a": {"model": "m"}, "b": {"model": "n", key: value}}
    given = ("--head", "a=m", "--head", "b=n", "--output", "o", "--calibration-data", "c")
    assert chosen(*given, flag, f"b={word}") == BuildConfig.from_document({**FILES, "heads": heads})


@pytest.mark.parametrize("key", HEAD_SETTINGS)
def test_the_name_of_a_new_head_may_stand_before_its_setting(key: str) -> None:
    (_, word), _ = said(key, HEAD_SETTINGS[key])
    assert head_config("a", "m", {key: f"a={word}"}) == head_config("a", "m", {key: word})


def test_another_name_before_the_setting_of_a_new_head_is_part_of_it() -> None:
    assert head_config("a", "m", {"labels": "b=l.txt"}).labels == Path("b=l.txt")


def test_options_win_over_the_file(tmp_path: Path, chosen: Any) -> None:
    (tmp_path / "c.toml").write_text(GOOD)
    config = chosen("c.toml", "--output", "x", "--preprocessing", "raw", "--preprocessing", "dogs=caffe", "--fast")
    assert (config.output, config.rounding) == (Path("x"), "nearest")
    assert [head.preprocessing for head in config.heads] == [PREPROCESSING["raw"], PREPROCESSING["caffe"]]


def test_an_error_names_the_option_where_an_option_said_it(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(GOOD)
    done = CliRunner().invoke(cli.main, ["build", str(tmp_path / "c.toml"), "--size", "cats=x", "--min-agreement", "7"])
    assert done.exit_code == 2
    assert done.output.splitlines() == [
        "error: --size cats: expected a number of pixels or [height, width], found 'x'",
        "error: --min-agreement: expected a number from 0 to 1, found 7.0",
    ]
    done = CliRunner().invoke(cli.main, ["build", "--size", "7"])
    assert "error: --output: expected a path, found nothing" in done.output


def test_the_fuzzer_knows_every_key() -> None:
    document = TOML | {"heads": {"NAME": TOML["heads"]["cats"] | TOML["heads"]["dogs"]}}
    for key, _ in all_settings(BuildConfig):
        value: Any = document
        for part in key.split("."):
            assert part in value, key
            value = value[part]
    assert toml_value(document)


def test_the_time_of_a_build_is_in_the_file_only_where_it_is_given() -> None:
    assert (built_at(None), built_at("86400")) == ("", "1970-01-02T00:00:00Z")
    for wrong in ("", "soon", "9" * 30):
        with pytest.raises(ConfigError, match="SOURCE_DATE_EPOCH"):
            built_at(wrong)


def test_a_folder_is_another_source_where_a_file_in_it_is_another(tmp_path: Path) -> None:
    digests = set()
    for name, content in (("a", b"1"), ("a", b"2"), ("b", b"1")):
        folder = tmp_path / f"{len(digests)}"
        folder.mkdir()
        (folder / name).write_bytes(content)
        digests.add(source_digest(folder))
    assert len(digests) == 3
