#!/usr/bin/env bash
# The whole job, small, by the commands that a user types; run again, it goes on from where it stopped.
#   scripts/demo.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
OUT=${1:-demo}
export PATH="$PWD/.venv/bin:$PATH"
export TF_CPP_MIN_LOG_LEVEL=3
started=$SECONDS

step() {  # step TITLE COMMAND...
  printf '\n\033[1m%s\033[0m\n\033[2m$ %s\033[0m\n' "$1" "${*:2}"
  local begun=$SECONDS
  "${@:2}"
  printf '\033[2m  %d s\033[0m\n' $((SECONDS - begun))
}

echo "Simulating and training take minutes; both say as they go how much time is left on this machine."
step "1. A corpus of labelled tomograms, simulated from structures" \
  tlgen run demo --to "$OUT/corpus"
step "   What is in it" \
  tlgen ls "$OUT/corpus"
step "2. A network, trained on the samples marked train" \
  tltrain fit "$OUT/corpus" --to "$OUT/ribosome.tlm"

held_out=$(tlgen ls "$OUT/corpus" --where "split == 'test'" --paths)
step "3. Picks in the held-out tomogram, which training never saw" \
  tlpick run "$OUT/ribosome.tlm" "$held_out" --to "$OUT/picks"
step "4. The picks against the truth" \
  tlpick score "$OUT/picks" "$held_out"

cat <<END

Done in $((SECONDS - started)) s. What there is now:
  $OUT/corpus              the corpus (Zarr; xarray, napari and neuroglancer open its samples)
  $OUT/ribosome.tlm        the model
  $OUT/picks/particles.star  the picks, for RELION 5
  $OUT/picks/report.html   slices, picks, truth and the score on one page: open it in a browser
Next, your own protein:  .venv/bin/tlgen new mine.yaml, put your structure under targets, then
  .venv/bin/tlgen run mine.yaml --to mine/corpus
END
