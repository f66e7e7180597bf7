"""Turn every line of a text into ELMo vectors: `elmo-embed`, for a clone that is not installed.

python embed.py --checkpoint checkpoints/step_00000100 --input data/dev/part_00000.txt --output vectors.npz
"""

from elmo_embed import main

if __name__ == "__main__":
    main()
