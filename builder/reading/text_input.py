"""The text input of a classifier: its own ``TextVectorization``, or token numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from builder.reading.content import digest
from builder.reading.graph import INPUT, Graph, Ref, renumber
from builder.reading.originals.original import Shown
from builder.reading.vocabulary import check_output_mode, has_unknown_token, read_vocabulary, whole_vocabulary
from builder.settings.heads import ResizeConfig, TextConfig
from builder.support.errors import ConfigError, ModelFileError
from builder.support.lazy import Lazy
from builder.support.naming import setting
from edge_runtime.errors import EdgeRuntimeError
from edge_runtime.inputs import InputSpec
from edge_runtime.text import SPLIT, STANDARDIZE, UNKNOWN, TextInput, Tokenizer, split_text

keras: Any = Lazy("keras")
tf: Any = Lazy("tensorflow")

VECTORIZATION = "TextVectorization"
MANY_UNKNOWN = 0.5  # of the words of texts


@dataclass(frozen=True)
class TextSourceInput:
    """``words``: how a text is tokenized for the graph; without a vocabulary where none is known.

    ``inside``: whether the original has its own TextVectorization and takes strings; otherwise it takes token numbers.
    ``any_length``: whether that layer makes as many tokens as a text has.
    """

    words: TextInput
    inside: bool
    rank: int = 1  # of the strings that the original takes: (n,) or (n, 1)
    any_length: bool = False
    size: None = None
    name = "tokens"
    dtype = "int32"
    input_range: None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the graph's input, without the batch axis."""
        return (self.words.length,)

    @property
    def identity(self) -> str:
        """Equal where the graph's input is the same function of the text."""
        return digest("tokens", self.words.to_json(), self.words.vocabulary)

    @property
    def outside(self) -> str:
        """Equal where originals of one structure take the same input."""
        return str(self.inside)

    def graph_input(self, tensors: np.ndarray) -> np.ndarray:
        """The graph's input for the device's tensors: the same tokens."""
        return tensors

    device_input = graph_input

    def shown(self, samples: Sequence[Any]) -> Shown:
        """The texts ``samples``, bytes (n,), as strings for a model that takes them, else as int32 (n, length).

        A model of any length is shown what the device reads of a text, as one of pictures of any size is.
        """
        if self.inside:
            read = [first_tokens(text, self.words) for text in samples] if self.any_length else list(samples)
            return Shown(read, rank=self.rank)
        tokenizer = Tokenizer(self.words)
        return Shown(np.concatenate([tokenizer(text) for text in samples]))

    def layer_in_file(self) -> None:
        """The file takes tokens, as the graph does."""
        return

    def keras_input(self) -> tuple[Any, Any]:
        """A string input and its tokens; a token input where no Keras layer tokenizes the same way."""
        if self.words.kind != "tokens":
            tokens = keras.Input(self.shape, dtype=self.dtype, name=self.name)
            return tokens, tokens
        # Without a split, Keras treats a text as one token and the batch as the sequence, except for shape (n, 1).
        text = keras.Input(() if self.words.split else (1,), dtype="string", name="text")
        return text, text_layer(self.words)(text)

    def spec(self, resize: ResizeConfig) -> TextInput:
        """The device's input."""
        return self.words

    def with_words(self, config: TextConfig | TextInput | None, where: str) -> TextSourceInput:
        """This input with the vocabulary of ``config`` or of a finished file, where the model has none.

        Raises ``ConfigError``.
        """
        if isinstance(config, TextInput):
            return self if self.inside else replace(self, words=config)
        length = None if config is None else config.maxlen
        if self.inside and config not in (None, TextConfig(maxlen=length)):
            raise ConfigError(
                f"{where} has a vocabulary and a standardization of its own; leave all but maxlen out of [text]"
            )
        if not self.inside and (config is None or config.vocabulary is None):
            raise ConfigError(
                f"{where} takes token numbers; set how texts are tokenized: [text] with vocabulary = "
                "the file with one token on each line, or a Tokenizer's to_json()"
            )
        if length not in (None, self.words.length):
            raise ConfigError(
                f"text.maxlen: expected {self.words.length}, the length of the input of {where}, found {length}"
            )
        if self.inside or config is None:
            return self
        return replace(self, words=declared_words(config, self.words.length))

    def difference(self, other: TextSourceInput, ours: str) -> tuple[str, str] | None:
        """How ``other`` differs from this input, that of the model ``ours``: (what, advice)."""
        same = "A token must mean the same to both; train both with one vocabulary and one TextVectorization"
        if self.identity == other.identity:
            return None
        mine, theirs = self.words, other.words
        if mine.vocabulary != theirs.vocabulary:
            pairs = enumerate(zip(mine.vocabulary, theirs.vocabulary, strict=False))
            place = next((i for i, (a, b) in pairs if a != b), min(len(mine.vocabulary), len(theirs.vocabulary)))
            found, own = (
                repr(words.vocabulary[place : place + 1])[1:-1].rstrip(",") or "none" for words in (theirs, mine)
            )
            return (
                f"its vocabulary of {len(theirs.vocabulary)} tokens differs from that of {ours} "
                f"({len(mine.vocabulary)}): token {place} is {found}, there {own}",
                same,
            )
        we, they = mine.to_json(), theirs.to_json()
        key = next(key for key in (*we, *they) if we.get(key) != they.get(key))
        return f"{key} of its texts is {they.get(key)!r}, that of {ours} {we.get(key)!r}", same

    def __str__(self) -> str:
        if not self.words.vocabulary:
            return f"the numbers of {self.words.length} tokens"
        return f"texts of {self.words.length} tokens, vocabulary of {len(self.words.vocabulary):,}"


def first_tokens(text: bytes, words: TextInput) -> bytes:
    """A text of which the tokens are the first ``words.length`` of ``text``."""
    found = split_text(text, replace(words, length=words.length + 1))
    if len(found) <= words.length:
        return text
    return (b"" if words.split == "character" else b" ").join(found[: words.length])


def declared_words(config: TextConfig, length: int) -> TextInput:
    """How texts become tokens, from the user's settings. Raises ``ConfigError``."""
    assert config.vocabulary is not None
    tokens, word_index = read_vocabulary(config.vocabulary)
    if word_index is None:
        words = TextInput(length, tokens, config.standardize, config.split, config.ngrams)
        side = "post"  # where TextVectorization pads and truncates
    else:
        if (config.standardize, config.split, config.ngrams) != (STANDARDIZE[0], SPLIT[0], None):
            raise ConfigError(
                f"{config.vocabulary} is a Tokenizer and says how a text becomes words; leave standardize, split and "
                "ngrams out of [text]"
            )
        words = TextInput(length, tokens, None, None, None, word_index=word_index)
        side = "pre"  # where pad_sequences does by default
    return replace(words, padding=config.padding or side, truncating=config.truncating or side)


def text_notes(spec: InputSpec, config: TextConfig | None, texts: Sequence[Any]) -> tuple[str, ...]:
    """Notes on assumed padding, and on texts with mostly unknown words; empty for pictures."""
    if not isinstance(spec, TextInput):
        return ()
    notes, vocabulary = [], None if config is None else config.vocabulary
    if config is not None and vocabulary is None:
        longer = sum(first_tokens(text, spec) != text for text in texts)
        if longer:
            notes.append(
                f"{longer:,} of the {len(texts):,} calibration texts have more than {spec.length} tokens and are cut "
                f"there ({setting('text.maxlen')})"
            )
    if config is not None and spec.word_index is not None and not (config.padding and config.truncating):
        notes.append(
            f"texts are padded {spec.padding} and truncated {spec.truncating}, the defaults of pad_sequences; if "
            'training used others, set padding and truncating in [text] to "pre" or "post"'
        )
    if vocabulary is not None and spec.word_index is None and not has_unknown_token(vocabulary):
        notes.append(
            f"{vocabulary} has no {UNKNOWN}: its tokens are numbered from 2 on, as by TextVectorization. "
            "A Tokenizer numbers them from 1 on: if one made it, give the output of its to_json()"
        )
    unknown = unknown_words(spec, texts)
    if unknown > MANY_UNKNOWN:
        notes.append(
            f"{unknown:.0%} of the words of the calibration texts are not in the vocabulary: either the texts or the "
            "vocabulary are not those the models were trained with, so their answers mean little"
        )
    return tuple(notes)


def unknown_words(words: TextInput, texts: Sequence[bytes]) -> float:
    """The share of the tokens of ``texts`` that are not in the vocabulary."""
    tokenizer = Tokenizer(words)
    known, found = np.array([tokenizer.known(text) for text in texts]).reshape(-1, 2).sum(0)
    return 1 - float(known) / float(found) if found else 0.0


def text_layer(words: TextInput) -> Any:
    """The Keras layer that gives the same tokens."""
    return keras.layers.TextVectorization(
        standardize=words.standardize,
        split=words.split,
        ngrams=words.ngrams,
        output_sequence_length=words.length,
        vocabulary=list(words.vocabulary),
        name="tokens",
    )


def split_vectorization(graph: Graph, path: Path, length: int | None) -> tuple[Graph, TextInput | None, bool]:
    """The graph from the tokens on, and the TextVectorization before it, None where there is none; whether that layer
    takes texts of any length: then ``length`` is used.

    Raises ``ModelFileError`` for one that the runtime does not support.
    """
    places = [i for i, node in enumerate(graph.nodes) if node.kind == VECTORIZATION]
    if not places:
        return graph, None, False
    node = graph.nodes[places[0]]
    if len(places) > 1 or list(node.inputs()) != [Ref(INPUT, 0)]:
        raise ModelFileError(f"{path}: expected one {VECTORIZATION}, on the model's input, found {len(places)}")
    words = _words(node.config, path, length)
    kept = [i for i in range(len(graph.nodes)) if i != places[0]]
    rest = renumber(graph, kept, {Ref(places[0], 0): Ref(INPUT, 0)})
    return rest, words, node.config.get("output_sequence_length") is None


def check_embedding(graph: Graph, words: TextInput, path: Path) -> None:
    """Raises ``ModelFileError`` where a token has no row in the embedding that reads it."""
    for node in graph.nodes:
        if node.kind == "Embedding" and list(node.inputs()) == [Ref(INPUT, 0)]:
            rows = int(node.config["input_dim"])
            if len(words.vocabulary) > rows:
                raise ModelFileError(
                    f"{path}: the vocabulary has {len(words.vocabulary):,} tokens, the embedding {node.layer!r} "
                    f"{rows:,} rows; give the vocabulary that it was trained with"
                )


def reads_tokens(graph: Graph) -> bool:
    """Whether an embedding reads the model's input."""
    return any(node.kind == "Embedding" and Ref(INPUT, 0) in node.inputs() for node in graph.nodes)


_FIXED = (
    ("ragged", False, "set ragged=False and output_sequence_length, and save the model again"),
    ("encoding", "utf-8", "devices read UTF-8; train it on texts in UTF-8"),
)


def _words(config: Mapping[str, Any], path: Path, open_length: int | None) -> TextInput:
    def refused(what: str, remedy: str) -> ModelFileError:
        return ModelFileError(f"{path}: {VECTORIZATION}: {what}; {remedy}")

    for key, valid in (("standardize", STANDARDIZE), ("split", SPLIT)):
        if config.get(key) not in (None, *valid):
            found = "a function" if isinstance(config[key], Mapping) else repr(config[key])
            what = f"expected {key} as None, {' or '.join(valid)}, found {found:.60}"
            raise refused(what, "devices do nothing else; train it with one of these")
    check_output_mode(config, path)
    for key, value, remedy in _FIXED:
        if config.get(key, value) != value:
            raise refused(f"expected {key} {value!r}, found {config[key]!r:.60}", remedy)
    length, vocabulary, ngrams = (config.get(key) for key in ("output_sequence_length", "vocabulary", "ngrams"))
    length = open_length if length is None else length
    if not isinstance(length, int):
        raise refused(
            "expected output_sequence_length, the number of tokens of every text, found none",
            f"give the length of the longest texts as {setting('text.maxlen')}",
        )
    if not isinstance(vocabulary, (list, tuple)) or not vocabulary:
        raise ModelFileError(f"{path}: {VECTORIZATION}: no vocabulary in the file; save the model as .keras")
    ngrams = tuple(range(1, ngrams + 1)) if isinstance(ngrams, int) else ngrams
    if ngrams is not None and config.get("split") is None:
        raise refused("expected ngrams with a split, found none", "set ngrams=None or train it with a split")
    if ngrams is not None and config.get("output_sequence_length") is None:
        raise refused("expected ngrams with output_sequence_length, found none", "set it and save the model again")
    spec = TextInput(length, (), config.get("standardize"), config.get("split"), ngrams and tuple(ngrams))
    try:
        return TextInput.from_json(
            {**spec.to_json(), "vocabulary_size": len(whole := whole_vocabulary(tuple(vocabulary)))}, list(whole)
        )
    except (EdgeRuntimeError, ValueError) as error:
        raise ModelFileError(f"{path}: {VECTORIZATION}: {error}") from error
