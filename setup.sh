# Finds a usable Python environment or makes one. Sourced by the run.sh files, from the project's folder:
#     more_requirements=requirements-dev.txt; . ./setup.sh
# Sets PYTHON (an interpreter that has everything), GPU (0 or 1), and what Paddle's launcher wants to find.
#
# An environment is made in .venv, where the driver shows a card in .venv-gpu: Paddle's wheels for CPU and GPU own the
# same files, so they never share one. A folder that was not made here is used if it has everything, but never changed.
#
#     PYTHON=/path/to/python   the interpreter to use or, where it lacks something, to make the environment from
#     PADDLE=3.3.1             that version instead of the pinned one, in .venv-paddle-3.3.1; on the CPU only, as the
#                              GPU wheels of Paddle 3 are not in the common package index
#     VENV=folder              instead of .venv (folder, folder-gpu, folder-paddle-3.3.1)

fail() {
    echo "setup: $*" >&2
    exit 1
}

# has_card: true if the driver sees a card that answers.
has_card() {
    nvidia-smi -L 2>/dev/null | grep -q '^GPU [0-9]'
}

# complete INTERPRETER FILE...: true if all in the requirement files is installed there as pinned, and Paddle can be
# imported; prints what lacks.
complete() {
    interpreter=$1
    shift
    command -v "$interpreter" >/dev/null 2>&1 || return 1
    "$interpreter" - "$@" 2>/dev/null <<'EOF'
import importlib.metadata, subprocess, sys

try:
    from pip._vendor.packaging.requirements import Requirement
except ImportError:  # uv makes environments without pip
    from setuptools._vendor.packaging.requirements import Requirement

for path in sys.argv[1:]:
    for line in open(path, encoding="utf-8"):
        text = line.split("#")[0].strip()
        if text and not text.startswith("-"):
            wanted = Requirement(text)
            if not wanted.marker or wanted.marker.evaluate():
                try:
                    installed = importlib.metadata.version(wanted.name) in wanted.specifier
                except importlib.metadata.PackageNotFoundError:
                    installed = False
                if not installed:
                    sys.exit(print(text) or 1)
tried = subprocess.run([sys.executable, "-c", "import paddle"], stderr=subprocess.PIPE)  # pip's modules would disturb it
if tried.returncode:
    sys.exit(print("a Paddle that can be imported: " + tried.stderr.decode().strip().split("\n")[-1]) or 1)
EOF
}

# own_paddle INTERPRETER: prints the version of a Paddle for GPUs of the user's own that is there, 2.6 or 3, if all else
# is there too.
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
    command -v "$1" >/dev/null 2>&1 &&
        "$1" -c 'import sys; sys.exit(not (3, 8) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null
}

# The note in a folder says that it was made here.
note=made_by_setup.sh.txt
is_own() {
    [ -d "$1" ] && [ ! -L "$1" ] && [ -f "$1/$note" ]
}

# empty_own FOLDER: makes a folder with the note, or empties one that has it; fails on any other.
empty_own() {
    if mkdir "$1" 2>/dev/null; then
        echo "setup.sh of elmo-chinese made this folder and may delete all in it." >"$1/$note"
    elif is_own "$1"; then
        find "$1" -mindepth 1 -maxdepth 1 ! -name "$note" -exec rm -rf {} +
    else
        return 1
    fi
}

. ./scripts/launch.sh

# --- which environment ---

environment=${VENV:-.venv} GPU=0 requirements=requirements-cpu.txt made=''
if [ -n "${PADDLE:-}" ]; then
    environment=$environment-paddle-$PADDLE
    ! has_card || echo "setup: PADDLE=$PADDLE runs on the CPU only, your GPUs stay unused"
    requirements=$(mktemp) made=$requirements
    sed "s/^paddlepaddle==[^ ]*/paddlepaddle==$PADDLE/; s/^numpy==[^ ;]*/numpy/" requirements-cpu.txt >"$requirements"
elif has_card; then
    environment=$environment-gpu GPU=1 requirements=requirements.txt
    . ./scripts/cards.sh
fi
requirements="$requirements${more_requirements:+ $more_requirements}"

# Cards that are hidden are not wanted, and stay hidden.
case ${CUDA_VISIBLE_DEVICES-all} in '' | -1* | NoDevFiles) hidden=1 ;; *) hidden='' ;; esac

asked=${PYTHON:-} PYTHON='' own=''
if [ "$GPU" = 1 ]; then
    [ -n "$hidden" ] || check_cards
    # What is asked for or active is taken as it is, unless it is what this project would install.
    for candidate in ${asked:-python python3}; do
        if ! complete "$candidate" $requirements >/dev/null && own=$(own_paddle "$candidate"); then
            echo "setup: using paddlepaddle-gpu $own of $candidate as it is"
            PYTHON=$candidate
            break
        fi
    done
    [ -n "$hidden$own" ] || check_kernels
fi

if [ -z "$PYTHON" ] && [ -n "$asked" ] && ! supported "$asked"; then
    fail "PYTHON=$asked is $("$asked" --version 2>&1 | sed -n 1p), but Paddle ${PADDLE:-2.6.2} needs Python 3.8 to 3.12"
fi

# Asked for by name: that one, or the environment made from it. Otherwise the active environment, or $environment.
for candidate in "$asked" "$environment/bin/python" ${asked:-python python3}; do
    [ -z "$PYTHON" ] || break
    if [ -n "$candidate" ] && supported "$candidate" && complete "$candidate" $requirements >/dev/null; then
        PYTHON=$candidate
    fi
done

if [ -z "$PYTHON" ]; then
    for candidate in ${asked:-python3 python3.12 python3.11 python3.10 python3.9 python3.8 python}; do
        if supported "$candidate"; then
            base=$candidate
            break
        fi
    done
    [ -n "${base:-}" ] || fail "no Python 3.8 to 3.12 found (Paddle 2.6.2 has no wheels for others);" \
        "install one, or name it: PYTHON=/path/to/python"
    PYTHON=$environment/bin/python
    version='import sys; print("%d.%d" % sys.version_info[:2])'
    # One without pip is what Debian leaves behind where python3-venv is missing.
    if is_own "$environment" && "$PYTHON" -m pip --version >/dev/null 2>&1 &&
        [ "$("$base" -c "$version")" = "$("$PYTHON" -c "$version")" ]; then
        echo "setup: completing $environment from $requirements"
    else
        lacks=$(complete "$PYTHON" $requirements) || :
        empty_own "$environment" || fail "$environment was not made by setup.sh, so it stays as it is, but it lacks" \
            "${lacks:-a Python that runs, or pip}. Install that there, move it away, or have another made:" \
            "VENV=.venv-elmo sh run.sh"
        echo "setup: making $environment with Python $("$base" -c "$version") from $requirements (once; some minutes)"
        "$base" -m venv "$environment" ||
            fail "could not make $environment; on Debian and Ubuntu: apt install python3-venv"
    fi
    for file in $requirements; do
        "$PYTHON" -m pip install --disable-pip-version-check -r "$file" ||
            fail "pip could not install $file; is a package index reachable?"
    done
    lacks=$(complete "$PYTHON" $requirements) ||
        fail "$environment was set up, but lacks ${lacks:-pip}; delete that folder and try again"
fi
[ -z "$made" ] || rm -f "$made"

case $PYTHON in
/*) ;;
*/*) PYTHON=$(pwd)/$PYTHON ;;
esac
export PYTHON

if [ "$GPU" = 1 ]; then
    [ -n "$own" ] || link_cuda
    if [ -n "$hidden" ]; then
        GPU=0
    elif ! "$PYTHON" -c 'import paddle, sys; sys.exit(not paddle.device.cuda.device_count())' 2>/dev/null; then
        fail "the driver shows a card, but Paddle of $PYTHON sees none; on the CPU: CUDA_VISIBLE_DEVICES= sh run.sh"
    fi
elif [ -z "$hidden" ]; then
    unset CUDA_VISIBLE_DEVICES # the launcher would look for an entry of each process in it
fi
