"""Weights for LossNet that were learned on the data at hand, where there are none of ImageNet.

Takes the encoder of a trained `unet` on VGG-16 and writes it under the public names, for
``lossnet_weights``:

    S="--split skin.split.json --scale 2 --steps 400 --set batch_size=4"
    finemask train skin --method unet --set encoder=vgg16 --set encoder_width=16 --set width=8 \
        $S --out runs/vgg
    python benchmarks/lossnet.py runs/vgg vgg16-skin.safetensors
    finemask train skin --method msnet --set lossnet_weights=vgg16-skin.safetensors \
        --set lossnet_width=16 $S --out runs/msnet
"""

from __future__ import annotations

import argparse
from pathlib import Path

from safetensors.torch import save_file

from finemask.methods import create
from finemask.nn.encoders.released import public_names
from finemask.nn.lossnet import LossNet
from finemask.runs import load_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()
    run = load_run(arguments.run)
    encoder = create(run.recipe).public_encoder()
    assert encoder is not None, "the run is of no method with a public encoder"
    weights = run.segmenter.network.encoder.encoder.state_dict()
    named = {theirs: weights[ours].contiguous() for ours, theirs in public_names(encoder).items()}
    save_file(named, arguments.file)
    LossNet(arguments.file, width=run.recipe.config["encoder_width"])  # it loads
    print(f"{arguments.file}: {len(named)} tensors of VGG-16")


if __name__ == "__main__":
    main()
