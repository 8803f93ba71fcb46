"""``builder inspect``: what models share, where they part, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from builder.backbone import Difference, SharedBackbone, find_backbone, first_difference
from builder.errors import NoSharedBackboneError
from builder.graph import Node
from builder.loading import Classifier, read_classifier
from builder.merge import backbone_model
from builder.pixels import PixelTransform


@dataclass(frozen=True)
class Group:
    """Models that share a backbone. ``difference``: where the first of them leaves the first model of all."""

    classifiers: tuple[Classifier, ...]
    shared: SharedBackbone | None
    difference: Difference | None

    def head(self, index: int) -> tuple[Node, ...]:
        """The nodes of the classifier at ``index`` that are its own."""
        return self.classifiers[index].graph.nodes[self.shared.cuts[index] if self.shared else 0 :]


def inspect(models: Sequence[tuple[Path, PixelTransform | None]]) -> tuple[Group, ...]:
    """The models in groups that share a backbone, in the order of their first models.

    ``models``: each with what happens to the pixels outside it; None takes what the model's own layers say.
    Raises ``ModelFileError``.
    """
    groups: list[list[Classifier]] = []
    for path, preprocessing in models:
        classifier = read_classifier(str(path), path, preprocessing)
        for group in groups:
            if _share((group[0], classifier)) is not None:
                group.append(classifier)
                break
        else:
            groups.append([classifier])
    first = groups[0][0]
    return tuple(Group(tuple(g), _share(g), None if g[0] is first else first_difference(first, g[0])) for g in groups)


def to_json(groups: Sequence[Group]) -> dict[str, Any]:
    """The document of ``inspect --json``. ``backbone`` is the first group's, and null where it has none."""
    first = groups[0]
    models = [
        {
            "path": str(c.path),
            "group": number,
            "head_parameters": sum(node.parameters for node in group.head(i)),
            "head_layers": [node.layer for node in group.head(i)],
        }
        for number, group in enumerate(groups)
        for i, c in enumerate(group.classifiers)
    ]
    backbone = None
    if first.shared is not None:
        backbone = {
            "digest": f"sha256:{first.shared.digest}",
            "parameters": first.shared.parameters,
            "layers": first.shared.cuts[0],
            "features": list(backbone_model(first.classifiers[0], first.shared).output_shape[1:]),
        }
    difference = next((g.difference for g in groups if g.difference is not None), None)
    return {
        "shared": len(groups) == 1 and first.shared is not None,
        "backbone": backbone,
        "models": models,
        "first_difference": None if difference is None else asdict(difference),
    }


def print_tree(groups: Sequence[Group]) -> None:
    """The same for a person, on standard output."""
    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=160)
    for group in groups:
        console.print(_tree(group))
        if group.difference is not None:
            console.print(
                f"  parts from {escape(str(groups[0].classifiers[0].path))} at {escape(group.difference.layer)}:"
            )
            console.print(f"  {escape(group.difference.what)}")
    if len(groups) > 1:
        console.print(f"\n{len(groups)} groups that share nothing with each other: build a file for each, or train again")
        console.print("the heads of one group on the frozen base of another (base.trainable = False, training=False).")


def _share(classifiers: Sequence[Classifier]) -> SharedBackbone | None:
    try:
        return find_backbone(classifiers)
    except NoSharedBackboneError:
        return None


def _tree(group: Group) -> Tree:
    if group.shared is None:
        tree = Tree("no backbone")
    else:
        first, cut = group.classifiers[0], group.shared.cuts[0]
        tree = Tree(
            f"[bold]backbone[/bold] {group.shared.digest[:12]}: {cut} layers, {group.shared.parameters:,} parameters\n"
            f"{first.size[1]} x {first.size[0]} as {first.pixels}; "
            f"ends with {escape(first.graph.nodes[cut - 1].layer)}"
        )
    for i, classifier in enumerate(group.classifiers):
        nodes = group.head(i)
        branch = tree.add(f"{escape(str(classifier.path))}: {sum(n.parameters for n in nodes):,} parameters of its own")
        for node in nodes[:12]:
            parameters = f", {node.parameters:,} parameters" if node.parameters else ""
            branch.add(f"{escape(node.layer)} ({node.kind}{parameters})")
        if len(nodes) > 12:
            branch.add(f"and {len(nodes) - 12} more layers")
    return tree
