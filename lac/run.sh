#!/bin/sh
# Train the tagger with ELMo from the checkpoint of `sh run.sh`, score it, tag a sentence:
#     sh lac/run.sh [flags of lac.train]
#
# ELMO=checkpoints/step_00001000 (or a Fluid folder, with --elmo_dict_dir) names another biLM, ELMO= none: the
# baseline. A stopped or killed run is resumed by the same command. CPU_NUM=2 trains with two processes.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/.."
. ./setup.sh

train_task lac tagger --train_data lac/data/train.txt --dev_data lac/data/dev.txt "$@"
"$PYTHON" -m lac.evaluate --model "$folder" --test_data lac/data/dev.txt
sentence=上海市市长昨天会见了来自德国的客人。
echo "$sentence"
echo "$sentence" | "$PYTHON" -m lac.predict --model "$folder"
