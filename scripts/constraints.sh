#!/usr/bin/env bash
# Writes constraints.txt anew: names and versions of everything, for Python 3.11 to 3.13, without addresses.
set -euo pipefail
cd "$(dirname "$0")/.."
{
  echo "# Written by 'make constraints': do not edit. What each version is installed for stands in pyproject.toml."
  .tools/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras --group dev \
      --no-annotate --no-header pyproject.toml |
    # the platform is the same for all of them; what is left of a marker tells Python versions apart
    sed -E -e "s/ and platform_machine == 'x86_64' and sys_platform == 'linux'//" \
           -e "s/ ; python_full_version < '3\.14'$//" -e "s/ and python_full_version < '3\.14'$//"
} >constraints.new
mv constraints.new constraints.txt
