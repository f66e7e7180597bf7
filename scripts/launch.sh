# What the run.sh files share. Sourced by setup.sh.

# Paddle's launcher and gloo would take the address that the host's name stands for, which containers and laptops may
# lack, or have from another network.
host=
if [ "${NNODES:-1}" = 1 ]; then
    [ -n "${POD_IP:-}" ] || host="--host 127.0.0.1"
    [ "$(uname)" != Linux ] || export GLOO_SOCKET_IFNAME="${GLOO_SOCKET_IFNAME:-lo}"
fi

# Paddle sets OMP_NUM_THREADS=1 for the processes that it launches, so only here it is known to be the user's.
[ -z "${OMP_NUM_THREADS:-}" ] || export MKL_NUM_THREADS="${MKL_NUM_THREADS:-$OMP_NUM_THREADS}"

# log_folder NAME: makes a folder for the launcher's logs of one run and prints its path; a temporary one if the
# project's folder cannot be written.
log_folder() {
    { mkdir -p log && mktemp -d "log/$1_XXXXXX"; } 2>/dev/null || mktemp -d
}

# given FLAG ARGUMENT...: prints the value that a flag has on a command line; fails if it is not there.
given() {
    flag=$1 before='' value='' found=1
    shift
    for argument; do
        [ "$before" != "$flag" ] || { value=$argument found=0; }
        case $argument in "$flag"=*) value=${argument#*=} found=0 ;; esac
        before=$argument
    done
    printf %s "$value"
    return $found
}

# show_help PROGRAM ARGUMENT...: where help is asked for, shows that of a Python program and ends.
show_help() {
    program=$1
    shift
    for argument; do
        # shellcheck disable=SC2086
        case $argument in -h | --help) exec "$PYTHON" $program --help ;; esac
    done
}

# stay_on_cpu PROCESSES ARGUMENT...: turns to the CPU where --use_gpu false says so, and hides all cards there from
# processes of the launcher, which looks for an entry of each in the list.
stay_on_cpu() {
    processes=$1
    shift
    case $(given --use_gpu "$@" | tr '[:upper:]' '[:lower:]') in
    false | no | 0) [ "$GPU" = 0 ] || GPU=0 CUDA_VISIBLE_DEVICES= ;;
    esac
    if [ "$GPU" = 0 ] && [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
        CUDA_VISIBLE_DEVICES=-1
        while [ $((processes -= 1)) -gt 0 ]; do CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES,-1; done
        export CUDA_VISIBLE_DEVICES
    fi
}

# train_task PACKAGE WHAT FLAG...: trains a task of this project (lac: a tagger) on its sample data with ELMo from ELMO,
# unset: from the best checkpoint of `sh run.sh`, empty: without. Sets folder to the run's; ends here if it was stopped.
train_task() {
    task=$1 what=$2 folder=$1_model
    shift 2
    show_help "-m $task.train" "$@"
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
    stay_on_cpu "${CPU_NUM:-1}" "$@"
    [ "$GPU" = 0 ] || set -- --use_gpu true "$@"
    set -- --model_save_dir "$folder" "$@"
    folder=$(given --model_save_dir "$@")
    set -- -m "$task.train" --pretrain_elmo_model_path "$ELMO" --load_dir auto "$@"
    export ELMO_SCRIPT="sh $task/run.sh"
    stopped='' status=0
    trap 'stopped=1' INT # saved by then; what comes after training is not wanted
    # shellcheck disable=SC2086
    if [ "$GPU" = 0 ] && [ "${CPU_NUM:-1}" -gt 1 ]; then
        "$PYTHON" -m paddle.distributed.launch $host --nproc_per_node "$CPU_NUM" --log_level WARNING \
            --log_dir "$(log_folder "$task")" "$PYTHON" "$@" || status=$?
    else
        "$PYTHON" "$@" || status=$?
    fi
    trap - INT
    [ "$stopped$status" = 0 ] || exit "$status"
}
