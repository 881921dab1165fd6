#!/bin/sh
# Install finemask for prediction from exported folders: every pinned dependency but torch.
#   sh tools/install_runtime.sh PYTHON [--no-index --find-links WHEELS]
# Further arguments go to pip. Run in the root of the repository.
set -eu
python=$1
shift
needed="jaxtyping numpy pillow pydicom rich scipy threadpoolctl tifffile tomli-w typer matplotlib"
"$python" -m pip install --quiet --disable-pip-version-check --no-cache-dir "$@" \
    -c constraints.txt $needed onnxruntime openvino hatchling
"$python" -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-deps \
    --no-build-isolation "$@" .
"$python" -m finemask --version
