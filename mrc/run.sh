#!/bin/sh
# Train a reader with ELMo from the checkpoint of `sh run.sh`, score it, answer a question:
#     sh mrc/run.sh [flags of mrc.train]
#
# ELMO=checkpoints/step_00001000 (or a Fluid folder, with --elmo_dict_dir) names another biLM, ELMO= none: the
# baseline. A stopped or killed run is gone on with by the same command. CPU_NUM=2 trains with two processes.
set -eu
cd "$(dirname "$0")/.."
. ./setup.sh

folder=mrc_model
if [ -z "${ELMO+set}" ]; then
    if [ ! -f checkpoints/latest ]; then
        echo "mrc/run.sh: no biLM in checkpoints/ yet; first: sh run.sh" >&2
        exit 1
    fi
    ELMO=checkpoints/$(cat checkpoints/latest)
fi
if [ -n "$ELMO" ]; then
    echo "mrc/run.sh: training a reader on mrc/data with ELMo from $ELMO"
else
    folder=mrc_model_baseline
    echo "mrc/run.sh: training a reader on mrc/data without ELMo"
fi

set -- --train_data mrc/data/train.json --dev_data mrc/data/dev.json --pretrain_elmo_model_path "$ELMO" \
    --model_save_dir "$folder" --load_dir auto "$@"
if [ "$GPU" = 0 ] && [ "${CPU_NUM:-1}" -gt 1 ]; then
    export PADDLE_DISTRI_BACKEND=gloo
    "$PYTHON" -m paddle.distributed.launch --nproc_per_node "$CPU_NUM" --log_level WARNING --log_dir log \
        "$PYTHON" -m mrc.train "$@"
else
    "$PYTHON" -m mrc.train "$@"
fi
"$PYTHON" -m mrc.predict --model "$folder" --data mrc/data/dev.json >"$folder/dev_predictions.json"
"$PYTHON" -m mrc.evaluate --data mrc/data/dev.json --predictions "$folder/dev_predictions.json"
