# What the shell can find out about GPUs, and the names of CUDA's libraries. Sourced by setup.sh where there is a card.

# check_cards: ends where CUDA_VISIBLE_DEVICES names cards that are not there.
check_cards() {
    there=$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null | tr -d ' ') missing='' left=''
    [ -n "$there" ] || return 0
    for card in $(printf %s "${CUDA_VISIBLE_DEVICES-}" | tr ',' ' '); do
        case $card in
        *[!0-9]*) return 0 ;; # "all", or cards by their long names
        *) if printf '%s\n' "$there" | grep -qx "$card"; then left=$left,$card; else missing="$missing $card"; fi ;;
        esac
    done
    [ -z "$missing" ] || fail "CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES: not there:$missing (the driver shows" \
        "$(printf %s "$there" | paste -sd, -)); for those that are: CUDA_VISIBLE_DEVICES=${left#,}"
}

# check_kernels: ends where the pinned wheel has no kernels for a card that is not hidden. They are for 6.1 to 8.6; a
# card of a later number of the same generation runs them, too.
check_kernels() {
    visible=,$(printf %s "${CUDA_VISIBLE_DEVICES-}" | tr -d ' '),
    nvidia-smi --query-gpu=index,compute_cap --format=csv,noheader 2>/dev/null | tr -d ' ' |
        while IFS=, read -r card capability; do
            case $visible in ,, | *,all,* | *,GPU-* | *,"$card",*) ;; *) continue ;; esac
            case $capability in
            6.0 | [0-5].* | 9.* | [1-9][0-9].*)
                fail "card $card has compute capability $capability; paddlepaddle-gpu 2.6.2 has kernels for 6.1 to 8.9.
Hide it (CUDA_VISIBLE_DEVICES= for the CPU), or make an environment with a Paddle for it, and name that:
    python3 -m venv .venv-own
    .venv-own/bin/python -m pip install paddlepaddle-gpu==3.3.1 -i INDEX
        # Paddle's own index for CUDA 12; its installation page has the address
    .venv-own/bin/python -m pip install jieba visualdl setuptools
    PYTHON=.venv-own/bin/python sh run.sh" ;;
            esac
        done || exit 1
}

# link_cuda: the pinned wheel opens CUDA's libraries by their bare names (libcudnn.so). The nvidia-*-cu11 wheels hold
# them with version numbers, so each name that the system does not have needs a link, and their folders must be searched
# for what they load in turn.
link_cuda() {
    PATH=$PATH:/usr/sbin:/sbin # where ldconfig is, for ordinary users on Debian
    system=$(ldconfig -p 2>/dev/null | sed -n 's/^[[:space:]]*\(lib[^ ]*\) .*/\1/p'
        IFS=:; for folder in ${LD_LIBRARY_PATH:-}; do ls "$folder" 2>/dev/null || :; done)
    nvidia=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/nvidia
    empty_own .cuda_links || fail ".cuda_links was not made by setup.sh, which needs this name; move it away"
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
}
