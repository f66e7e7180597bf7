#!/bin/sh
# Train a reader with ELMo from the checkpoint of `sh run.sh`, score it, answer a question:
#     sh mrc/run.sh [flags of mrc.train]
#
# ELMO=checkpoints/step_00001000 (or a Fluid folder, with --elmo_dict_dir) names another biLM, ELMO= none: the
# baseline. A stopped or killed run is resumed by the same command. CPU_NUM=2 trains with two processes.
set -eu
cd "$(dirname "$0")/.."
. ./setup.sh

train_task mrc reader --train_data mrc/data/train.json --dev_data mrc/data/dev.json "$@"
"$PYTHON" -m mrc.predict --model "$folder" --data mrc/data/dev.json >"$folder/dev_predictions.json"
"$PYTHON" -m mrc.evaluate --data mrc/data/dev.json --predictions "$folder/dev_predictions.json"
text=小雨每天早上七点骑车去学校，下午四点回家。她最喜欢的课是音乐。
question=小雨早上几点去学校？
echo "$text $question"
"$PYTHON" -m mrc.predict --model "$folder" --question "$question" --text "$text"
