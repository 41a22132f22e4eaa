#!/usr/bin/env bash
# Prometheus (with promtool), Alertmanager (for amtool), Chromium and its driver: some tests run them. As root on Debian they are installed.
set -euo pipefail

packages=(prometheus prometheus-alertmanager chromium chromium-driver)
commands=(prometheus promtool amtool chromium chromedriver)

missing=()
for command in "${commands[@]}"; do
    command -v "$command" >/dev/null || missing+=("$command")
done
if [ ${#missing[@]} -eq 0 ]; then
    echo "system packages: all there"
elif [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "system packages: installing ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
else
    echo "system packages: not found: ${missing[*]}. Tests that need them are skipped."
    echo "On Debian: sudo apt-get install ${packages[*]}"
fi
