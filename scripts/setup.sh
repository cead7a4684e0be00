#!/usr/bin/env bash
# Sets up everything in .venv (and uv in .tools); safe to run again, and quick when nothing changed.
#   scripts/setup.sh          TensorFlow for the CPU
#   GPU=1 scripts/setup.sh    TensorFlow and JAX with CUDA
#   PYTHON=python3.12 ...     another Python (3.11 to 3.13)
set -euo pipefail
cd "$(dirname "$0")/.."

UV_VERSION=0.13.9
PYTHON=${PYTHON:-python3}
ACCELERATOR=$([ "${GPU:-0}" = 1 ] && echo gpu || echo cpu)
LOG=.setup/install.log

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
stop() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# --- the machine -----------------------------------------------------------------------------------
[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || stop "Parakeet's engine is built here for Linux on x86-64 only, and this is $(uname -s) on $(uname -m)."
command -v "$PYTHON" >/dev/null || stop "there is no $PYTHON; install Python 3.11, 3.12 or 3.13, or name one with PYTHON=..."
"$PYTHON" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
  || stop "$PYTHON is $("$PYTHON" -V), and 3.11 to 3.13 is needed; name another with PYTHON=..."

missing=()
command -v g++ >/dev/null || missing+=(g++)
command -v make >/dev/null || missing+=(make)
command -v pkg-config >/dev/null || missing+=(pkg-config)
[ -e /usr/include/fftw3.h ] || missing+=(libfftw3-dev)
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
[ -e "$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] || missing+=(python3-dev)
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" != 0 ]; then
    stop "system packages are missing; ask an administrator to run:  sudo apt-get install -y ${missing[*]}"
  fi
  say "installing ${missing[*]} (usually under a minute)"
  mkdir -p .setup
  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } >.setup/apt.log 2>&1 \
    || { tail -n 5 .setup/apt.log >&2; stop "apt-get could not install ${missing[*]} (above; all of it in .setup/apt.log)."; }
fi

# --- what is installed already ---------------------------------------------------------------------
state=$( { echo "$ACCELERATOR $UV_VERSION"; "$PYTHON" -V; cat pyproject.toml constraints.txt tools/multem-build-env/*; } | sha256sum | cut -c1-16)
if [ -x .venv/bin/python ] && [ "$(cat .venv/.setup-state 2>/dev/null)" = "$state" ]; then
  exit 0
fi

mkdir -p .setup
started=$SECONDS
export UV_PYTHON_DOWNLOADS=never
if [ "$(.tools/bin/uv --version 2>/dev/null | cut -d' ' -f2)" != "$UV_VERSION" ]; then
  say "installing uv $UV_VERSION (usually 10 seconds)"
  "$PYTHON" -m venv .tools
  .tools/bin/python -m pip install --quiet --disable-pip-version-check "uv==$UV_VERSION"
fi
if ! .venv/bin/python -c 'import sys; sys.exit(sys.argv[1] != "Python %d.%d.%d" % sys.version_info[:3])' "$("$PYTHON" -V)" 2>/dev/null; then
  .tools/bin/uv venv --quiet --clear --python "$PYTHON" .venv
fi

say "installing the dependencies; Parakeet's engine is compiled (usually 5 minutes; seconds where uv has it in its cache)"
if ! .tools/bin/uv pip install --compile-bytecode --python .venv/bin/python --constraints constraints.txt \
    --editable ".[$ACCELERATOR,s3,parakeet,variants]" --group dev >"$LOG" 2>&1; then
  if grep -q 'Failed to build `python-\(multem\|parakeet\)' "$LOG"; then
    grep -m 3 -iE 'error[: ]' "$LOG" | cut -c1-300 >&2 || true
    stop "Parakeet could not be built (the first errors are above, all of it in $LOG); nothing here works without it."
  fi
  tail -n 8 "$LOG" >&2
  stop "the dependencies could not be installed (the end of $LOG is above)."
fi
.venv/bin/python -c 'import multem' 2>>"$LOG" \
  || stop "Parakeet's engine was built but does not load: $(tail -n 1 "$LOG")"
echo "$state" >.venv/.setup-state
say "set up in $((SECONDS - started)) s: .venv, $(du -sh .venv | cut -f1) on disk"
