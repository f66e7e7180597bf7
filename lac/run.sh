#!/bin/sh
# Train the tagger with ELMo from the checkpoint of `sh run.sh`, score it, tag a sentence:
#     sh lac/run.sh [flags of lac.train]
#
# ELMO=checkpoints/step_00001000 (or a Fluid folder, with --elmo_dict_dir) names another biLM, ELMO= none: the
# baseline. A stopped or killed run is gone on with by the same command. CPU_NUM=2 trains with two processes.
set -eu
cd "$(dirname "$0")/.."
. ./setup.sh

folder=lac_model
if [ -z "${ELMO+set}" ]; then
    if [ ! -f checkpoints/latest ]; then
        echo "lac/run.sh: no biLM in checkpoints/ yet; first: sh run.sh" >&2
        exit 1
    fi
    ELMO=checkpoints/$(cat checkpoints/latest)
fi
if [ -n "$ELMO" ]; then
    echo "lac/run.sh: training a tagger on lac/data with ELMo from $ELMO"
else
    folder=lac_model_baseline
    echo "lac/run.sh: training a tagger on lac/data without ELMo"
fi

set -- --train_data lac/data/train.txt --dev_data lac/data/dev.txt --pretrain_elmo_model_path "$ELMO" \
    --model_save_dir "$folder" --load_dir auto "$@"
if [ "$GPU" = 0 ] && [ "${CPU_NUM:-1}" -gt 1 ]; then
    "$PYTHON" -m paddle.distributed.launch --nproc_per_node "$CPU_NUM" --log_level WARNING --log_dir "$(log_folder lac)" \
        "$PYTHON" -m lac.train "$@"
else
    "$PYTHON" -m lac.train "$@"
fi
"$PYTHON" -m lac.evaluate --model "$folder" --test_data lac/data/dev.txt
sentence=上海市市长昨天会见了来自德国的客人。
echo "$sentence"
echo "$sentence" | "$PYTHON" -m lac.predict --model "$folder"

