#!/usr/bin/env bash
# Installs what the tests need and this machine lacks (Debian, Ubuntu), then runs all of them.
# What cannot be installed is skipped, and said so at the end. Needs a Rust toolchain.
set -uo pipefail
cd "$(dirname "$0")/.."

start=$SECONDS
passed=0 failed=0
broken=()

if ! command -v cargo >/dev/null; then
    echo "tests/run.sh: cargo is not installed: see https://www.rust-lang.org/tools/install" >&2
    exit 2
fi
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target"
log=$target/tests.log
export COREROPE_SKIPPED=$PWD/$target/skipped.txt
case $target in /*) COREROPE_SKIPPED=$target/skipped.txt ;; esac
: >"$log"
: >"$COREROPE_SKIPPED"

# A program, and the packages that bring it.
needs=(
    "gcc gcc libc6-dev"
    "g++ g++"
    "nm binutils"
    "make make"
    "cmake cmake"
    "aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
    "aarch64-linux-gnu-g++ g++-aarch64-linux-gnu"
    "riscv64-linux-gnu-gcc gcc-riscv64-linux-gnu libc6-dev-riscv64-cross"
    "riscv64-linux-gnu-g++ g++-riscv64-linux-gnu"
    "qemu-aarch64 qemu-user"
    "qemu-riscv64 qemu-user"
    "x86_64-w64-mingw32-gcc gcc-mingw-w64-x86-64"
    "x86_64-w64-mingw32-g++ g++-mingw-w64-x86-64"
    "lld-link lld"
    "ld64.lld-14 lld-14"
    "mold mold"
    "llvm-readobj llvm"
    "arm-none-eabi-gcc gcc-arm-none-eabi libnewlib-arm-none-eabi"
    "arm-none-eabi-ld binutils-arm-none-eabi"
    "riscv64-unknown-elf-gcc gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf"
    "qemu-system-arm qemu-system-arm"
    "qemu-system-riscv32 qemu-system-misc"
    "wine wine wine64"
    "gdb-multiarch gdb-multiarch"
    "llvm-dwarfdump llvm"
)
[ "$(uname -m)" = x86_64 ] || needs+=("x86_64-linux-gnu-gcc gcc-x86-64-linux-gnu" "qemu-x86_64 qemu-user")

install() {
    local missing=() entry root=()
    for entry in "${needs[@]}"; do
        command -v "${entry%% *}" >/dev/null || missing+=("$entry")
    done
    [ ${#missing[@]} -eq 0 ] && return
    echo "not installed:$(for entry in "${missing[@]}"; do printf ' %s' "${entry%% *}"; done)"
    if ! command -v apt-get >/dev/null; then
        echo "no apt-get here: what needs them is skipped"
        return
    fi
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null && ! [ -t 0 ]; then
            echo "neither root nor sudo: what needs them is skipped"
            return
        fi
        root=(sudo)
    fi
    local apt=("${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
    "${apt[@]}" update >>"$log" 2>&1 || echo "apt-get update failed ($log)"
    for entry in "${missing[@]}"; do
        echo "installing ${entry#* }"
        # One after the other: a package that a release lacks must not keep the rest out.
        # shellcheck disable=SC2086
        "${apt[@]}" install -y --no-install-recommends ${entry#* } >>"$log" 2>&1 </dev/null ||
            echo "could not install ${entry#* }: what needs it is skipped"
    done
}

# Runs one check that either passes or fails.
check() {
    local name=$1
    shift
    echo "== $name"
    if "$@" 2>&1 | tee -a "$log"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        broken+=("$name")
    fi
}

install

if cargo fmt --version >/dev/null 2>&1; then
    check rustfmt cargo fmt --check
else
    echo "rustfmt: not installed (rustup component add rustfmt)" >>"$COREROPE_SKIPPED"
fi
if cargo clippy --version >/dev/null 2>&1; then
    check clippy cargo clippy --quiet --locked --all-targets -- -D warnings
else
    echo "clippy: not installed (rustup component add clippy)" >>"$COREROPE_SKIPPED"
fi

echo "== cargo test"
tests=$target/tests.out
cargo test --locked --no-fail-fast 2>&1 | tee "$tests" | grep -v ' \.\.\. ok$'
status=${PIPESTATUS[0]}
cat "$tests" >>"$log"
read -r ok bad < <(awk '/^test result:/ { ok += $4; bad += $6 } END { print ok + 0, bad + 0 }' "$tests")
passed=$((passed + ok))
failed=$((failed + bad))
while read -r name; do broken+=("$name"); done < <(awk '/^test .* FAILED$/ { print $2 }' "$tests" | sort -u)
if [ "$status" -ne 0 ] && [ "$bad" -eq 0 ]; then
    failed=$((failed + 1))
    broken+=("cargo test (it did not finish)")
fi

echo
echo "== summary ($((SECONDS - start)) s, log in $log)"
exceptions=$(grep -cv -e '^#' -e '^$' tests/exceptions.txt)
echo "$exceptions cases of the shared data are outside (tests/exceptions.txt):"
grep -v -e '^#' -e '^$' tests/exceptions.txt | sed 's/^/  /'
if [ -s "$COREROPE_SKIPPED" ]; then
    echo "skipped:"
    sort -u "$COREROPE_SKIPPED" | sed 's/^/  /'
fi
if [ "$failed" -ne 0 ]; then
    echo "failed:"
    printf '  %s\n' "${broken[@]}"
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
