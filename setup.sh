# Finds a usable Python environment or makes .venv. Sourced by the run.sh files, from the project's folder:
#     more_requirements=requirements-dev.txt; . ./setup.sh
# Sets PYTHON (an interpreter that has everything), GPU (0 or 1), and the library path of CUDA's wheels.
# PYTHON=/path/to/python picks the interpreter that .venv is made from. PADDLE=3.3.1 takes that version instead of
# the pinned one, in .venv-paddle-3.3.1; on CPU only, as the GPU wheels of Paddle 3 are not in the common package index.

fail() {
    echo "setup: $*" >&2
    exit 1
}

# has_card: true if the driver sees a card that answers.
has_card() {
    nvidia-smi -L 2>/dev/null | grep -q '^GPU [0-9]'
}

# log_folder NAME: makes a folder for the launcher's logs of one run and prints its path; a temporary one if the
# project's folder cannot be written.
log_folder() {
    { mkdir -p log && mktemp -d "log/$1_XXXXXX"; } 2>/dev/null || mktemp -d
}

# train_task PACKAGE WHAT FLAG...: trains a task of this project (lac: a tagger) on its sample data, with ELMo from ELMO,
# unset: from the checkpoint of `sh run.sh`, empty: without. Sets folder to the run's. Call it when PYTHON is there.
train_task() {
    task=$1 what=$2 folder=$1_model
    shift 2
    if [ -z "${ELMO+set}" ]; then
        if [ ! -f checkpoints/latest ]; then
            echo "$task/run.sh: no biLM in checkpoints/ yet; first: sh run.sh" >&2
            exit 1
        fi
        ELMO=checkpoints/$(cat checkpoints/latest)
    fi
    if [ -n "$ELMO" ]; then
        echo "$task/run.sh: training a $what on $task/data with ELMo from $ELMO"
    else
        folder=${folder}_baseline
        echo "$task/run.sh: training a $what on $task/data without ELMo"
    fi
    set -- -m "$task.train" --pretrain_elmo_model_path "$ELMO" --model_save_dir "$folder" --load_dir auto "$@"
    if [ "$GPU" = 0 ] && [ "${CPU_NUM:-1}" -gt 1 ]; then
        "$PYTHON" -m paddle.distributed.launch --nproc_per_node "$CPU_NUM" --log_level WARNING \
            --log_dir "$(log_folder "$task")" "$PYTHON" "$@"
    else
        "$PYTHON" "$@"
    fi
}

environment=.venv
if [ -n "${PADDLE:-}" ]; then
    environment=.venv-paddle-$PADDLE
    ! has_card || echo "setup: PADDLE=$PADDLE runs on the CPU only, your GPUs stay unused"
    GPU=0 requirements=$environment.txt
    sed "s/^paddlepaddle==[^ ]*/paddlepaddle==$PADDLE/; s/^numpy==[^ ;]*/numpy/" requirements-cpu.txt >"$requirements"
elif has_card; then
    GPU=1 requirements=requirements.txt
else
    GPU=0 requirements=requirements-cpu.txt
fi

requirements="$requirements ${more_requirements:-}"

# complete INTERPRETER FILE...: true if everything in the requirement files is installed there as pinned.
complete() {
    interpreter=$1
    shift
    command -v "$interpreter" >/dev/null 2>&1 || return 1
    "$interpreter" - "$@" 2>/dev/null <<'EOF'
import importlib.metadata, sys
from pip._vendor.packaging.requirements import Requirement

for path in sys.argv[1:]:
    for line in open(path, encoding="utf-8"):
        text = line.split("#")[0].strip()
        if text and not text.startswith("-"):
            wanted = Requirement(text)
            if not wanted.marker or wanted.marker.evaluate():
                if importlib.metadata.version(wanted.name) not in wanted.specifier:
                    sys.exit(1)
EOF
}

supported() {
    command -v "$1" >/dev/null 2>&1 && "$1" -c 'import sys; sys.exit(not (3, 8) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null
}

if [ -n "${PYTHON:-}" ] && ! supported "$PYTHON"; then
    fail "PYTHON=$PYTHON is $("$PYTHON" --version 2>&1 | sed -n 1p), but Paddle ${PADDLE:-2.6.2} needs Python 3.8 to 3.12"
fi

asked=${PYTHON:-}
PYTHON=
# Asked for by name: that one, or the environment made from it. Otherwise the active environment, or $environment.
for candidate in "$asked" $environment/bin/python ${asked:-python python3}; do
    if [ -n "$candidate" ] && supported "$candidate" && complete "$candidate" $requirements; then
        PYTHON=$candidate
        break
    fi
done

if [ -z "$PYTHON" ]; then
    for candidate in ${asked:-python3 python3.12 python3.11 python3.10 python3.9 python3.8 python}; do
        if supported "$candidate"; then
            base=$candidate
            break
        fi
    done
    [ -n "${base:-}" ] || fail "no Python 3.8 to 3.12 found (Paddle 2.6.2 has no wheels for others); install one, or name it: PYTHON=/path/to/python"
    version=$("$base" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    # One without pip is what Debian leaves behind where python3-venv is missing.
    if $environment/bin/python -m pip --version >/dev/null 2>&1 && [ "$version" = "$($environment/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" ]; then
        echo "setup: completing $environment from $requirements"
    else
        echo "setup: making $environment with Python $version from $requirements (once; some minutes)"
        "$base" -m venv --clear "$environment" || fail "could not make $environment; on Debian and Ubuntu: apt install python3-venv"
    fi
    for file in $requirements; do
        $environment/bin/python -m pip install --quiet --disable-pip-version-check -r "$file" ||
            fail "pip could not install $file; is a package index reachable?"
    done
    PYTHON=$environment/bin/python
fi

case $PYTHON in
/*) ;;
*/*) PYTHON=$(pwd)/$PYTHON ;;
esac
export PYTHON

# Paddle's GPU wheel opens CUDA's libraries by their bare names (libcudnn.so); the nvidia-*-cu11 wheels hold
# them with version numbers, so each needs a link, and their folders must be searched for what they load in turn.
if [ "$GPU" = 1 ]; then
    known=$(ldconfig -p 2>/dev/null || :; IFS=:; for folder in ${LD_LIBRARY_PATH:-}; do ls "$folder" 2>/dev/null || :; done)
    case $known in
    *libcublas.so.11*libcudnn.so.8* | *libcudnn.so.8*libcublas.so.11*)
        echo "setup: using the CUDA 11 and cuDNN 8 of this system" ;;
    *)
        nvidia=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/nvidia
        mkdir -p .cuda_links
        path=$(pwd)/.cuda_links
        for file in cublas/lib/libcublas.so.11 cublas/lib/libcublasLt.so.11 cudnn/lib/libcudnn.so.8 \
            cufft/lib/libcufft.so.10 curand/lib/libcurand.so.10 cusolver/lib/libcusolver.so.11 \
            cusparse/lib/libcusparse.so.11 cuda_nvrtc/lib/libnvrtc.so.11.2 cuda_cupti/lib/libcupti.so.11.8 \
            nccl/lib/libnccl.so.2 nvtx/lib/libnvToolsExt.so.1; do
            name=${file##*/}
            ln -sfn "$nvidia/$file" ".cuda_links/${name%%.so*}.so"
            case $path in *"$nvidia/${file%/*}"*) ;; *) path=$path:$nvidia/${file%/*} ;; esac
        done
        # cuDNN 8.6 ends the process where the driver offers libcuda.so.1 but not the bare name.
        driver=$(ldconfig -p 2>/dev/null | sed -n 's/.*libcuda\.so\.1 .*x86-64.* => //p' | sed -n 1p)
        [ -z "$driver" ] || ln -sfn "$driver" .cuda_links/libcuda.so
        export LD_LIBRARY_PATH="$path${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" ;;
    esac
fi

# Cards that are hidden are not wanted, and stay hidden. Where there is none, the launcher must not find the list: it
# would look for an entry of each process in it.
case ${CUDA_VISIBLE_DEVICES-all} in
'' | -1* | NoDevFiles) GPU=0 ;;
*) [ "$GPU" = 1 ] || unset CUDA_VISIBLE_DEVICES ;;
esac
