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
# unset: from the best checkpoint of `sh run.sh`, empty: without. Sets folder to the run's; ends here if it was stopped.
# Call it when PYTHON is there.
train_task() {
    task=$1 what=$2 folder=$1_model
    shift 2
    if [ -z "${ELMO+set}" ]; then
        if [ ! -f checkpoints/latest ]; then
            echo "$task/run.sh: no biLM in checkpoints/ yet; first: sh run.sh" >&2
            exit 1
        fi
        ELMO=checkpoints
    fi
    if [ -n "$ELMO" ]; then
        echo "$task/run.sh: training a $what on $task/data with ELMo from $ELMO"
    else
        folder=${folder}_baseline
        echo "$task/run.sh: training a $what on $task/data without ELMo"
    fi
    set -- --model_save_dir "$folder" "$@"
    for argument; do
        [ "${before:-}" != --model_save_dir ] || folder=$argument
        before=$argument
        case $argument in --model_save_dir=*) folder=${argument#*=} ;; esac
    done
    set -- -m "$task.train" --pretrain_elmo_model_path "$ELMO" --load_dir auto "$@"
    stopped='' status=0
    trap 'stopped=1' INT # saved by then; what comes after training is not wanted
    if [ "$GPU" = 0 ] && [ "${CPU_NUM:-1}" -gt 1 ]; then
        "$PYTHON" -m paddle.distributed.launch --nproc_per_node "$CPU_NUM" --log_level WARNING \
            --log_dir "$(log_folder "$task")" "$PYTHON" "$@" || status=$?
    else
        "$PYTHON" "$@" || status=$?
    fi
    trap - INT
    [ "$stopped$status" = 0 ] || exit "$status"
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

# own_paddle INTERPRETER: prints the version of a Paddle for GPUs of the user's own that is there, 2.6 or 3, if everything
# else is there too.
own_paddle() {
    command -v "$1" >/dev/null 2>&1 || return 1
    "$1" -c '
import importlib.metadata, sys

def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""

found = version("paddlepaddle-gpu")
if not found.startswith(("2.6.", "3.")):
    sys.exit(1)
missing = " ".join(name for name in ("numpy", "jieba", "visualdl") if not version(name))
if missing:
    print(f"setup: paddlepaddle-gpu {found} of {sys.executable} is not used, as {missing} lacks there; to use it: "
          f"{sys.executable} -m pip install {missing}", file=sys.stderr)
    sys.exit(1)
print(found)'
}

supported() {
    command -v "$1" >/dev/null 2>&1 && "$1" -c 'import sys; sys.exit(not (3, 8) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null
}

asked=${PYTHON:-}
PYTHON=
own=
if [ "$GPU" = 1 ]; then
    # What is asked for or active is taken as it is, unless it is what this project would install.
    for candidate in ${asked:-python python3}; do
        if ! complete "$candidate" $requirements && own=$(own_paddle "$candidate"); then
            echo "setup: using paddlepaddle-gpu $own of $candidate as it is"
            PYTHON=$candidate
            break
        fi
    done
fi

if [ -z "$PYTHON" ] && [ -n "$asked" ] && ! supported "$asked"; then
    fail "PYTHON=$asked is $("$asked" --version 2>&1 | sed -n 1p), but Paddle ${PADDLE:-2.6.2} needs Python 3.8 to 3.12"
fi

# Asked for by name: that one, or the environment made from it. Otherwise the active environment, or $environment.
for candidate in "$asked" $environment/bin/python ${asked:-python python3}; do
    [ -z "$PYTHON" ] || break
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

# The pinned GPU wheel opens CUDA's libraries by their bare names (libcudnn.so). The nvidia-*-cu11 wheels hold them with
# version numbers, so each name that the system does not have needs a link, and their folders must be searched for what
# they load in turn.
if [ "$GPU" = 1 ] && [ -z "$own" ]; then
    system=$(ldconfig -p 2>/dev/null | sed -n 's/^[[:space:]]*\(lib[^ ]*\) .*/\1/p'
        IFS=:; for folder in ${LD_LIBRARY_PATH:-}; do ls "$folder" 2>/dev/null || :; done)
    nvidia=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/nvidia
    rm -rf .cuda_links && mkdir -p .cuda_links
    path=$(pwd)/.cuda_links
    for file in cublas/lib/libcublas.so.11 cublas/lib/libcublasLt.so.11 cudnn/lib/libcudnn.so.8 \
        cufft/lib/libcufft.so.10 curand/lib/libcurand.so.10 cusolver/lib/libcusolver.so.11 \
        cusparse/lib/libcusparse.so.11 cuda_nvrtc/lib/libnvrtc.so.11.2 cuda_cupti/lib/libcupti.so.11.8 \
        nccl/lib/libnccl.so.2 nvtx/lib/libnvToolsExt.so.1; do
        name=${file##*/}
        bare=${name%%.so*}.so
        # Both names: a bare one alone may be another version's.
        if printf '%s\n' "$system" | grep -qxF "$bare" && printf '%s\n' "$system" | grep -qxF "$name"; then
            continue
        fi
        ln -sfn "$nvidia/$file" ".cuda_links/$bare"
        case $path in *"$nvidia/${file%/*}"*) ;; *) path=$path:$nvidia/${file%/*} ;; esac
    done
    # cuDNN 8.6 ends the process where the driver offers libcuda.so.1 but not the bare name.
    driver=$(ldconfig -p 2>/dev/null | sed -n 's/.*libcuda\.so\.1 .*x86-64.* => //p' | sed -n 1p)
    [ -z "$driver" ] || ln -sfn "$driver" .cuda_links/libcuda.so
    export LD_LIBRARY_PATH="$path${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
fi

# Cards that are hidden are not wanted, and stay hidden. Where there is none, the launcher must not find the list: it
# would look for an entry of each process in it.
case ${CUDA_VISIBLE_DEVICES-all} in
'' | -1* | NoDevFiles) GPU=0 ;;
*) [ "$GPU" = 1 ] || unset CUDA_VISIBLE_DEVICES ;;
esac

# The pinned wheel's kernels are for 6.1 to 8.6; a card of a later number of the same generation runs them too.
if [ "$GPU" = 1 ] && [ -z "$own" ]; then
    visible=,$(printf %s "${CUDA_VISIBLE_DEVICES-}" | tr -d ' '),
    nvidia-smi --query-gpu=index,compute_cap --format=csv,noheader 2>/dev/null | tr -d ' ' | while IFS=, read -r card capability; do
        case $visible in ,, | *,all,* | *,GPU-* | *,"$card",*) ;; *) continue ;; esac
        case $capability in
        6.0 | [0-5].* | 9.* | [1-9][0-9].*)
            fail "card $card has compute capability $capability, and paddlepaddle-gpu 2.6.2 has kernels for 6.1 to 8.9. Hide it (CUDA_VISIBLE_DEVICES= for the CPU), or make an environment with a paddlepaddle-gpu for it (2.6 or 3; Paddle's installation page says which), jieba and visualdl, and name it: PYTHON=/path/to/python" ;;
        esac
    done || exit 1
fi
