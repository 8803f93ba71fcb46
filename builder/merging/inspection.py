"""``builder inspect``: what models share, the first layer that differs, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.tree import Tree

from builder.merging.backbone import SharedBackbone, early_difference
from builder.merging.difference import Difference
from builder.merging.entering import as_each_other, read_each_said
from builder.merging.kin import kin, kin_difference, shared_by
from builder.merging.merged import seam_shapes
from builder.merging.mixed_sources import Conversions
from builder.merging.share import HeadShare, head_shares, share_sentences
from builder.merging.tolerance import align
from builder.reading.classifier import Classifier
from builder.reading.graph import Node
from builder.reading.picture_input import PictureSourceInput
from builder.reading.reader import Reader
from builder.reading.resizing import DEFAULT, resize_trouble
from builder.reading.scaling_notes import scaling_notes
from builder.reading.tflite.classifier import TfliteClassifier
from builder.settings.heads import HeadConfig, ResizeConfig
from builder.settings.limits import Limits
from builder.support.plain import plain
from edge_runtime.counting import count_of


@dataclass(frozen=True)
class Group:
    """Models that share a backbone. ``difference``: the first layer that differs from the very first model."""

    classifiers: tuple[Classifier, ...]
    shared: SharedBackbone | None
    difference: Difference | None

    def head(self, index: int) -> tuple[Node, ...]:
        """The nodes of the head of the classifier at ``index``."""
        nodes = self.classifiers[index].graph.nodes
        return nodes if self.shared is None else tuple(nodes[i] for i in self.shared.head(self.classifiers, index))

    @cached_property
    def shares(self) -> tuple[HeadShare, ...]:
        """What each head costs; empty where there is no backbone."""
        return () if self.shared is None else head_shares(self.classifiers, self.shared)

    def backbone(self) -> tuple[Node, ...]:
        """The shared nodes, as the first classifier has them."""
        indices = () if self.shared is None else self.shared.backbone(self.classifiers)
        return tuple(self.classifiers[0].graph.nodes[i] for i in indices)


def inspect(
    models: Sequence[HeadConfig],
    *,
    size: tuple[int, int] | None = None,
    tolerance: float = 0.0,
    allow_code: bool = False,
    limits: Limits | None = None,
    inference_mode: bool = False,
    text_length: int | None = None,
) -> tuple[Group, ...]:
    """Group the models by the backbone that they share, in the order of their first models.

    ``models``: each with its settings for pictures; their names do not matter. ``size``, ``tolerance`` and the others: as
    in ``BuildConfig``; ``text_length``: of tokens, for models that take texts of any length. Raises ``ModelFileError``.
    """
    reader = Reader(allow_code=allow_code, limits=limits, inference_mode=inference_mode, text_length=text_length)
    read = [found for model in models for found in read_each_said(reader, model, size)]
    return grouped(as_each_other(read), tolerance)


def grouped(classifiers: Sequence[Classifier], tolerance: float = 0.0) -> tuple[Group, ...]:
    """As ``inspect``, for models that were read already."""
    conversions = Conversions()
    groups = [_of_one_kind(group, tolerance, conversions) for group in kin(classifiers, tolerance, conversions)]
    return tuple(_group(members, groups[0][0], conversions) for members in groups)


def _of_one_kind(group: Sequence[Classifier], tolerance: float, conversions: Conversions) -> tuple[Classifier, ...]:
    """A group of ``kin`` with the weights of its first; all as operators where one of them is."""
    if len({isinstance(one, TfliteClassifier) for one in group}) > 1:
        group = [conversions.of(one) for one in group]
    return align(group, tolerance)[0]


def _group(members: Sequence[Classifier], first: Classifier, conversions: Conversions) -> Group:
    """``difference``: from the first group, or, in the first group, of a head that contains much of the base."""
    shared = shared_by(members)
    if members[0] is not first:
        return Group(tuple(members), shared, kin_difference(first, members[0], conversions))
    early = early_difference(members, shared) if shared is not None else None
    return Group(tuple(members), shared, early[2] if early else None)


def to_json(groups: Sequence[Group]) -> dict[str, Any]:
    """The document of ``inspect --json``. ``backbone`` is the first group's, or null where it has none."""
    first = groups[0]
    models = [
        {
            "path": str(c.path),
            "output": c.output_name,
            "group": number,
            "head_parameters": sum(node.parameters for node in group.head(i)),
            "head_layers": [node.layer for node in group.head(i)],
            "head_multiply_adds": group.shares[i].work if group.shares else None,
            "share_of_work": group.shares[i].work_share if group.shares else None,
            "resize": None if (resize := _resize(c)) is None else asdict(resize),
        }
        for number, group in enumerate(groups)
        for i, c in enumerate(group.classifiers)
    ]
    backbone = None
    if first.shared is not None:
        backbone = {
            "digest": f"sha256:{first.shared.digest}",
            "parameters": first.shared.parameters,
            "multiply_adds": first.shares[0].shared_work,
            "layers": len(first.backbone()),
            "features": seam_shapes(first.classifiers, first.shared)[0],
        }
    difference = next((g.difference for g in groups if g.difference is not None), None)
    return {
        "shared": len(groups) == 1 and first.shared is not None,
        "backbone": backbone,
        "models": models,
        "first_difference": None if difference is None else asdict(difference),
    }


def print_tree(groups: Sequence[Group]) -> None:
    """Print the groups for a person, on standard output."""
    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=160)
    say = partial(console.print, soft_wrap=not console.is_terminal)  # in a pipe a sentence is one line
    called = _short_names([c.name for group in groups for c in group.classifiers])
    for group in groups:
        console.print(_tree(group))
        shares = group.shares if len(group.classifiers) > 1 or len(groups) == 1 else ()  # alone it shares nothing
        for sentence in share_sentences([replace(share, name=called[share.name]) for share in shares]):
            say(f"  {plain(sentence)}.")
        for classifier in group.classifiers:
            for note in _notes(classifier):
                say(f"  {plain(called[classifier.name])}: {plain(note)}")
        for sentence in resize_trouble({str(c.path): c.source_input for c in group.classifiers}):
            say(f"  {plain(sentence)}")
        if group.difference is not None:
            say(
                f"  {plain(group.difference.model)} differs from {plain(groups[0].classifiers[0].path)}, first at "
                f"{plain(group.difference.layer)}:\n  {plain(group.difference.what)}.\n"
                f"  {plain(group.difference.advice)}."
            )
    if len(groups) > 1:
        console.print(f"\n{len(groups)} groups that share no backbone with each other: build one file for each group.")


def _notes(classifier: Classifier) -> tuple[str, ...]:
    """What a build would warn of: how the model was read, and doubts about its input scaling."""
    entered = classifier.source_input
    if not isinstance(entered, PictureSourceInput) or entered.unsaid:
        return classifier.notes
    return (*classifier.notes, *scaling_notes(Path(classifier.name).stem, entered, classifier.graph))


def _resize(classifier: Classifier) -> ResizeConfig | None:
    """How its pictures were resized in training, as far as known; None for texts."""
    entered = classifier.source_input
    return entered.resize if isinstance(entered, PictureSourceInput) else None


def _prepared(resize: ResizeConfig) -> str:
    whole = resize.over(DEFAULT)
    said = f"{whole.method}, {'antialiased' if whole.antialias else 'not antialiased'}, {whole.fit}"
    return f"resizing unknown, assumed {said}" if resize == ResizeConfig() else said


def _short_names(names: Sequence[str]) -> dict[str, str]:
    """For each path the name of its file, with its folder where several are called so."""
    files = Counter(Path(name).name for name in set(names))
    return {name: "/".join(Path(name).parts[-1 if files[Path(name).name] == 1 else -2 :]) for name in names}


def _tree(group: Group) -> Tree:
    if group.shared is None:
        tree = Tree("no backbone")
    else:
        first = group.classifiers[0]
        ends = [first.graph.nodes[ref.node].layer for ref in group.shared.seams[0].values()]
        tree = Tree(
            f"[bold]backbone[/bold] {group.shared.digest[:12]}: {count_of(len(group.backbone()), 'layers')}, "
            f"{group.shared.parameters:,} parameters\n{first.source_input}; "
            f"ends with {plain(' and '.join(ends))}"
        )
    for i, classifier in enumerate(group.classifiers):
        nodes = group.head(i)
        own = sum(n.parameters for n in nodes)
        resize = _resize(classifier)
        prepared = "" if resize is None else f"; pictures: {_prepared(resize)}"
        branch = tree.add(f"{plain(classifier.name)} ({plain(classifier.kind)}): {own:,} parameters of its own{prepared}")
        for node in nodes[:12]:
            parameters = f", {node.parameters:,} parameters" if node.parameters else ""
            branch.add(f"{plain(node.layer)} ({node.kind}{parameters})")
        if len(nodes) > 12:
            branch.add(f"and {count_of(len(nodes) - 12, 'more layers')}")
    return tree
