"""Make ``encoders.json`` with timm and torchvision, which finemask itself never imports.

Run in an environment of its own that has both: ``python make_encoders.py``.
"""

from __future__ import annotations

import json
from pathlib import Path

import timm
import torch
import torchvision
from test_encoders import COMPUTED, digest, made_up_weights, picture, summary
from torch import Tensor, nn

TIMM = {
    **{name: name for name in ("resnet18", "resnet34", "resnet50", "resnet101", "vgg16")},
    "res2net50": "res2net50d",
    "res2net101": "res2net101d",
}
CLASSIFIERS = ("fc.", "head.", "pre_logits.", "classifier.")


def shapes_of(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(value.shape)
        for name, value in network.state_dict().items()
        if not name.startswith(CLASSIFIERS)
    }


def features_of(network: nn.Module, image: Tensor) -> list[Tensor]:
    if hasattr(network, "features"):
        levels = []
        for number, layer in enumerate(network.features):
            image = layer(image)
            if number in (3, 8, 15, 22, 29):  # relu1_2, relu2_2, relu3_3, relu4_3, relu5_3
                levels.append(image)
        return levels
    levels = [network.act1(network.bn1(network.conv1(image)))]
    x = network.maxpool(levels[0])
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        x = stage(x)
        levels.append(x)
    return levels


def main() -> None:
    golden = {}
    for name, theirs in TIMM.items():
        network = timm.create_model(theirs, pretrained=False).eval()
        shapes = shapes_of(network)
        if hasattr(torchvision.models, name):
            assert shapes == shapes_of(getattr(torchvision.models, name)(weights=None))
        golden[name] = {"keys": len(shapes), "sha256": digest(shapes)}
        if name in COMPUTED:
            network.load_state_dict(made_up_weights(shapes), strict=False)
            with torch.no_grad():
                golden[name]["features"] = [summary(f) for f in features_of(network, picture())]
    path = Path(__file__).parent / "encoders.json"
    path.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
