#!/bin/sh
# Set up, then pretrain: sh run.sh [flags of train.py]
#
# On GPUs: the released sizes, one process for each card in CUDA_VISIBLE_DEVICES (all cards if unset).
# Without: a small model, CPU_NUM processes (default 1). A stopped or killed run is resumed by the
# same command; MAX_RESTART=3 sh run.sh does that by itself, so often, when a process was lost (killed, out of
# memory). Several machines: NNODES=2 MASTER=first.machine:6070 RANK=0|1 sh run.sh on each.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")"
. ./setup.sh
show_help train.py "$@"
stay_on_cpu "${CPU_NUM:-1}" "$@"

own_text=$(given --train_path "$@") || own_text=
# What stands before `--` are defaults: a run that is resumed keeps its own sizes and rates.
set -- --train_path data/train --test_path data/dev --vocab_path data/vocabulary.txt --load_dir auto -- "$@"
logs=$(log_folder "machine_${RANK:-0}")
if [ "$GPU" = 1 ]; then
    echo "run: GPUs ${CUDA_VISIBLE_DEVICES:-(all)}, released sizes: embed 512, hidden 4096, 2 layers, batch 128, 20 steps"
    devices=$(printf %s "${CUDA_VISIBLE_DEVICES:-all}" | tr -d ' ' | sed 's/,*$//')
    [ "$devices" != all ] || devices=$(nvidia-smi --query-gpu=index --format=csv,noheader | paste -sd, -)
    launch="--devices $devices"
    [ -z "${CUDA_VISIBLE_DEVICES:-}" ] || export CUDA_VISIBLE_DEVICES="$devices"
    set -- --use_gpu true "$@"
    if [ -z "$own_text" ]; then # the demonstration's must make one batch for all cards of all machines
        processes=$(($(printf %s "$devices" | tr -cd , | wc -c) + 1))
        rows=$((($(cat data/train/* | wc -w) + $(cat data/train/* | wc -l)) / 20 / processes / ${NNODES:-1}))
        if [ "$rows" -lt 128 ]; then
            echo "run: the text of the demonstration is small: batch $rows instead of 128 on each card"
            set -- --batch_size "$rows" "$@"
        fi
    fi
else
    echo "run: no GPU used: training a small model on CPU (embed 64, hidden 256, 2 layers, batch 32, 20 steps)"
    set -- --embed_size 64 --hidden_size 256 --batch_size 32 --dropout 0.2 --max_epoch 8 --shuffle true \
        --learning_rate 0.4 --lr_schedule linear --log_interval 20 --dev_interval 77 --save_interval 100 "$@"
    launch="--nproc_per_node ${CPU_NUM:-1}"
fi
if [ "${NNODES:-1}" != 1 ]; then
    : "${MASTER:?NNODES=$NNODES needs MASTER=address:port of the first machine}" "${RANK:?and RANK=0, 1, … of this one}"
    launch="$launch --nnodes $NNODES --master $MASTER --rank $RANK"
fi

# Asked to stop, the launcher must hear it once (a second time it hurries), so Ctrl-C must not reach it besides.
# It then ends with the signal's number; train.py has saved by that time, so that is no error.
export ELMO_SCRIPT="sh run.sh"
stopped=
trap 'stopped=1; kill -TERM "$launcher" 2>/dev/null' TERM INT HUP
restarts=${MAX_RESTART:-0}
while :; do
    # shellcheck disable=SC2086
    $(command -v setsid || :) "$PYTHON" -u -m paddle.distributed.launch $host $launch --log_level CRITICAL --log_dir "$logs" train.py "$@" &
    launcher=$!
    while :; do # a signal ends a wait early
        status=0
        wait "$launcher" || status=$?
        kill -0 "$launcher" 2>/dev/null || break
    done
    # With 1 train.py has said what is wrong, and would say it again.
    case $status in 0 | 1) break ;; esac
    [ -z "$stopped" ] && [ "$restarts" -gt 0 ] || break
    echo "run: a process was lost (status $status); resuming from the newest checkpoint, restarts left: $((restarts -= 1))" >&2
done
if [ -n "$stopped" ]; then
    # The launcher has stopped passing on by now what the first process says; those of other machines say nothing.
    [ ! -f "$logs/workerlog.0" ] || tail -n 4 "$logs/workerlog.0"
    if [ "${RANK:-0}" != 0 ] || grep -qs "^asked to stop: saved step\|^trained to step" "$logs/workerlog.0"; then
        case $status in 2 | 15) status=0 ;; esac
    else
        echo "run: stopped before anything was saved" >&2
    fi
fi
if [ "$own_text$stopped$status" = 0 ] && [ "${RANK:-0}" = 0 ]; then
    echo "run: the perplexity is low because a third of the demonstration's words are <UNK>, which is easily predicted"
fi
[ "$status" = 0 ] || echo "run: ended with an error; the output of every process is in $logs/workerlog.*" >&2
exit "$status"
