#!/bin/sh
# Installs the Debian packages that hone needs and this machine lacks. Without root (or sudo) it prints what to type.
set -eu
need="build-essential pkg-config libhdf5-dev libzstd-dev liblz4-dev libsnappy-dev libpcre2-dev libutf8proc-dev libjansson-dev libyaml-dev
      libssl-dev zlib1g-dev libmicrohttpd-dev libcmocka-dev libjs-chart.js valgrind" # the last three: tests and the report

if ! command -v dpkg-query > /dev/null; then
    # Not Debian: pkg-config knows the libraries by the names the Makefile uses; packages are the user's business.
    for library in hdf5 libzstd liblz4 snappy libpcre2-8 libutf8proc jansson yaml-0.1 libcrypto zlib libmicrohttpd cmocka; do
        pkg-config --exists "$library" || missing="${missing:-}$library "
    done
    [ -z "${missing:-}" ] && echo "everything needed is installed" && exit 0
    echo "deps: pkg-config does not find: $missing" >&2
    echo "  install the development packages of these libraries; on Debian 12 they are:" $need >&2
    exit 1
fi

missing=""
for package in $need; do
    case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null) in
        installed) ;;
        *) missing="$missing $package" ;;
    esac
done
[ -z "$missing" ] && echo "everything needed is installed" && exit 0

if [ "$(id -u)" = 0 ]; then
    root=""
elif command -v sudo > /dev/null && { sudo -n true 2> /dev/null || [ -t 0 ]; }; then
    root=sudo
else
    echo "deps: missing packages, and installing them needs root. As root, type:" >&2
    echo "  apt-get update && apt-get install -y --no-install-recommends$missing" >&2
    exit 1
fi
echo "installing:$missing"
$root apt-get update -q || echo "deps: apt-get update failed; trying with the lists that are here" >&2
$root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing || {
    echo "deps: the installation failed. When the cause above is mended, type:" >&2
    echo "  ${root:+sudo }apt-get install -y --no-install-recommends$missing" >&2
    exit 1
}
