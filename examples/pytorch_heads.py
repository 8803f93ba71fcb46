"""Three PyTorch classifiers on one frozen network, each exported to a `.tflite` of its own.

    python -m venv torch && torch/bin/pip install torch litert-torch pillow   # CPU builds do
    torch/bin/python examples/pytorch_heads.py --output build/pytorch
    builder build build/pytorch/heads.toml

It needs PyTorch and litert-torch, in an environment of its own, and neither TensorFlow nor polyhead. Every head is
exported in a process of its own, as three people would: no export knows of the others. Pictures enter as PyTorch has
them, (1, 3, height, width), with the usual means and deviations. Weights of the network are seeded, its layers are those
of MobileNetV2; with `--timm NAME` it is a network of timm, where that is installed (`pretrained=False`).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn

SIZE, SEED, FEATURES = 96, 7, 160
TASKS = {
    "colours": ("blue", "green", "red", "yellow"),
    "places": ("left", "right"),
    "shapes": ("disc", "square", "stripes"),
}
COLOURS = {"blue": (40, 60, 220), "green": (30, 170, 60), "red": (220, 40, 40), "yellow": (225, 210, 30)}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PICTURES = 40  # of each label


class Block(nn.Sequential):
    """An inverted residual: 1x1 up, 3x3 depthwise, 1x1 down; added to its input where shapes allow."""

    def __init__(self, source: int, target: int, stride: int, expand: int = 4) -> None:
        inner = source * expand
        super().__init__(
            nn.Conv2d(source, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU6(),
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU6(),
            nn.Conv2d(inner, target, 1, bias=False),
            nn.BatchNorm2d(target),
        )
        self.adds = stride == 1 and source == target

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        return x + y if self.adds else y


def network(name: str | None) -> nn.Module:
    """Pictures (n, 3, height, width) -> features; seeded, frozen, the same in every process."""
    torch.manual_seed(SEED)
    if name is not None:
        import timm

        found = timm.create_model(name, pretrained=False, num_classes=0)
    else:
        stem = [nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6()]
        blocks = [Block(16, 24, 2), Block(24, 24, 1), Block(24, 40, 2), Block(40, 40, 1), Block(40, 80, 2)]
        top = [nn.Conv2d(80, FEATURES, 1, bias=False), nn.BatchNorm2d(FEATURES), nn.ReLU6()]
        found = nn.Sequential(*stem, *blocks, *top, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for module in found.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, nn.BatchNorm2d):  # as if it had seen pictures
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return found.eval().requires_grad_(False)


def picture(task: str, label: str, rng: np.random.Generator) -> Image.Image:
    """One of a task's label; what the other tasks ask of it is left to chance."""
    asked = {one: str(rng.choice(labels)) for one, labels in TASKS.items()} | {task: label}
    ground = tuple(int(v) for v in rng.integers(90, 160, 3))
    image = Image.new("RGB", (SIZE, SIZE), ground)
    draw, colour = ImageDraw.Draw(image), COLOURS[asked["colours"]]
    edge = int(rng.integers(24, 36))
    x = int(rng.integers(4, 14)) + (SIZE // 2 if asked["places"] == "right" else 0)
    y = int(rng.integers(4, SIZE - edge - 4))
    if asked["shapes"] == "stripes":
        for row in range(y, y + edge, 8):
            draw.rectangle((x, row, x + edge, row + 3), fill=colour)
    else:
        (draw.ellipse if asked["shapes"] == "disc" else draw.rectangle)((x, y, x + edge, y + edge), fill=colour)
    noise = rng.normal(0, 8, (SIZE, SIZE, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def write_pictures(folder: Path) -> None:
    rng = np.random.default_rng(SEED)
    for task, labels in TASKS.items():
        for label in labels:
            place = folder / "pictures" / task / label
            place.mkdir(parents=True, exist_ok=True)
            for number in range(PICTURES):
                picture(task, label, rng).save(place / f"{number}.png")


def export(folder: Path, task: str, name: str | None) -> None:
    """Train one head on the features of its own pictures and write `TASK.tflite`."""
    import litert_torch

    base = network(name)
    paths = [path for label in TASKS[task] for path in sorted((folder / "pictures" / task / label).iterdir())]
    pixels = np.stack([np.asarray(Image.open(path), np.float32) for path in paths]) / 255
    shown = torch.from_numpy(((pixels - MEAN) / STD).astype(np.float32).transpose(0, 3, 1, 2).copy())
    truth = torch.tensor([TASKS[task].index(path.parent.name) for path in paths])
    features = base(shown)
    scale = features.std(0) + 0.1 * features.std()  # no weight of the head becomes large
    head = nn.Linear(features.shape[1], len(TASKS[task]))
    optimizer = torch.optim.Adam(head.parameters(), 0.05, weight_decay=1e-3)
    for _ in range(300):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(head((features - features.mean(0)) / scale), truth)
        loss.backward()
        optimizer.step()
    with torch.no_grad():  # the features' own scale goes into the head: the network stays as it is
        head.weight /= scale
        head.bias -= head.weight @ features.mean(0)
    model = nn.Sequential(base, head, nn.Softmax(1)).eval()
    right = (model(shown).argmax(1) == truth).float().mean().item()
    litert_torch.convert(model, (shown[:1],)).export(str(folder / f"{task}.tflite"))
    print(f"{task}: {right:.3f} of its own pictures right, {(folder / f'{task}.tflite').stat().st_size:,} bytes")


def write_settings(folder: Path) -> None:
    lines = ['output = "heads-int8.tflite"', 'calibration_data = "pictures"', ""]
    for task, labels in TASKS.items():
        names = ", ".join(f'"{label}"' for label in labels)
        lines += [f"[heads.{task}]", f'model = "{task}.tflite"', f"labels = [{names}]", 'preprocessing = "torch"', ""]
    (folder / "heads.toml").write_text("\n".join(lines), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("build/pytorch"))
    parser.add_argument("--timm", help="name of a network of timm")
    parser.add_argument("--head", choices=list(TASKS), help="export this one, in this process")
    options = parser.parse_args()
    if options.head:
        export(options.output, options.head, options.timm)
        return
    write_pictures(options.output)
    for task in TASKS:
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--head", task], check=True)
    write_settings(options.output)


if __name__ == "__main__":
    main()
