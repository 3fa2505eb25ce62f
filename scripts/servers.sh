# Sourced by scripts that start servers: installs the programs they need, for private use on loopback.

# Where tests/services.py looks, too: Debian leaves /usr/sbin out of most users' PATH.
missing_servers() {
    local server
    for server in "$@"; do
        PATH="/usr/lib/rabbitmq/bin:$PATH:/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin" \
            command -v "$server" > /dev/null || echo "$server"
    done
}

# install_servers SERVER…: from the distribution, for tests only, so none of them is left running.
install_servers() (
    # Debian's packages start their services unless this program forbids it.
    policy=/usr/sbin/policy-rc.d
    if [[ ! -e $policy ]]; then
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' > "$policy"
        chmod +x "$policy"
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq -o DPkg::Lock::Timeout=120 update || true # older lists may do
    apt-get -qq -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "$@"
)

# try_to_install SERVER…: programs whose Debian packages have the same names; fails if one is still missing.
try_to_install() {
    local missing
    mapfile -t missing < <(missing_servers "$@")
    if [[ ${#missing[@]} == 0 ]]; then return; fi
    if [[ $EUID != 0 ]] || ! command -v apt-get > /dev/null; then return 1; fi
    echo "Installing ${missing[*]} …" >&2
    install_servers "${missing[@]}" >&2 && [[ -z "$(missing_servers "$@")" ]]
}
