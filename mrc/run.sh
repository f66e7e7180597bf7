#!/bin/sh
# Train a reader with ELMo from the checkpoint of `sh run.sh`, score it, answer a question:
#     sh mrc/run.sh [flags of mrc.train]
#
# ELMO=checkpoints/step_00001000 (or a Fluid folder, with --elmo_dict_dir) names another biLM, ELMO= none: the
# baseline. A stopped or killed run is resumed by the same command. CPU_NUM=2 trains with two processes.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/.."
. ./setup.sh

dev="mrc/data/dev.json mrc/data/dev.jsonl"
# shellcheck disable=SC2086
{
    train_task mrc reader --train_data mrc/data/train.json mrc/data/train.jsonl --dev_data $dev "$@"
    predictions=$(log_folder mrc)/dev_predictions.json # in a folder of this run's own
    "$PYTHON" -m mrc.predict --model "$folder" --data $dev >"$predictions"
    "$PYTHON" -m mrc.evaluate --data $dev --predictions "$predictions"
}
text=王师傅在城南开了一家面馆，一碗牛肉面卖十八元。
question=一碗牛肉面多少钱？
echo "$text $question"
"$PYTHON" -m mrc.predict --model "$folder" --question "$question" --text "$text"
