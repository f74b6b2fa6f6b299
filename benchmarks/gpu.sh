#!/bin/sh
# All that wants a GPU, from the root of a checkout:
#
#     sh benchmarks/gpu.sh CIFAR10.npz [PHOTOGRAPHS] [STAGE ...]      stages: tests step compiled epochs streaming accuracy
#
# No stage means all. A stage that fails does not keep the next from running; the script then ends with 1. JSON goes to
# $RESULTS, run directories to $RUNS, where a second call goes on; $EPOCHS is of the accuracy runs, $EXTRA is more flags for them.
set -u
PYTHON=${PYTHON:-python3}
RESULTS=${RESULTS:-benchmarks/results}
RUNS=${RUNS:-runs}
EPOCHS=${EPOCHS:-100}
EXTRA=${EXTRA:-}
export PYTHONPATH=".${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
cifar=${1:?an npz of CIFAR-10: train_images, train_labels, test_images, test_labels}
shift
photographs=
if [ -d "${1:-}" ]; then
    photographs=$1
    shift
fi
[ $# -gt 0 ] || set -- tests step compiled epochs streaming accuracy
mkdir -p "$RESULTS" "$RUNS"
failed=0

tests() {
    "$PYTHON" -m pytest -rs -m gpu tests
}

step() {
    "$PYTHON" benchmarks/train_step.py --images "$cifar" --cases resnet18 --out "$RESULTS/train_step_gpu.json"
}

compiled() {
    "$PYTHON" benchmarks/train_step.py --images "$cifar" --cases resnet18 --set train.compile=true \
        --out "$RESULTS/train_step_gpu_compiled.json"
}

epochs() {
    "$PYTHON" benchmarks/epochs.py --images "$cifar" --epochs 20 --out "$RESULTS/epochs.json"
}

streaming() {
    if [ -z "$photographs" ]; then
        echo "streaming: no folder of photographs was given"
        return
    fi
    "$PYTHON" benchmarks/streaming.py --images "$photographs" --cases resnet18 --out "$RESULTS/streaming_gpu.json"
}

accuracy() {
    for head in none affine; do
        # shellcheck disable=SC2086
        "$PYTHON" -m collapse_lab compare simsiam no-stop-gradient --preset cifar10-800 --data.name npz --data.root "$cifar" \
            --seeds 1 --network.projector_output_norm $head --train.epochs "$EPOCHS" --train.precision bfloat16 \
            --train.channels_last --name "gpu-$head" --out "$RUNS" $EXTRA || return
        cp "$RUNS/gpu-$head/summary.json" "$RESULTS/accuracy_gpu_$head.json" || return
    done
}

for stage in "$@"; do
    case $stage in
    tests | step | compiled | epochs | streaming | accuracy) ;;
    *)
        echo "stage: found '$stage', allowed are tests, step, compiled, epochs, streaming, accuracy" >&2
        exit 2
        ;;
    esac
done
for stage in "$@"; do
    echo "== $stage"
    $stage || { echo "== $stage failed" && failed=1; }
done
exit $failed
